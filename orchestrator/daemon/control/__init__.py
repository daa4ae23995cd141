"""What people and programs ask of the daemon, and what they see of it: the control API, events, status."""
