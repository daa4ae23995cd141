"""The files that orch keeps between its lives: state, learned margins, history, and the lock on them."""
