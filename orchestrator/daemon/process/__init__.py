"""The daemon as a process: its start, signals, sockets, service manager, and end."""
