"""The HTTP data path: one stable address for clients, whatever engine is behind it."""
