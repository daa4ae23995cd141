"""What an engine is asked between its start and its first request: is it loaded, does it answer, and rightly."""
