"""What orch remembers between its lives: state, learned margins, history, and the lock on them."""
