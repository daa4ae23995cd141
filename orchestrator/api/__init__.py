"""What the daemon, the CLI and the TUI agree on: the shapes of the control API, and its client."""
