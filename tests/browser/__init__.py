"""The gateway's page in a real browser."""
