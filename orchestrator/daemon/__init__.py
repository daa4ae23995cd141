"""The long-running process: one task owns the state, the rest ask it."""
