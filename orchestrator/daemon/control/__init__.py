"""The requests of people and programs to the daemon, and its answers: the control API, events, status."""
