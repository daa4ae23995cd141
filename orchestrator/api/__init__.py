"""The control API as the daemon, the CLI and the TUI share it: its JSON, its client, its words. A leaf."""
