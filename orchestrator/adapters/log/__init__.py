"""The output of a process: read without blocking it, kept in memory and in a file. Not orch's own log."""
