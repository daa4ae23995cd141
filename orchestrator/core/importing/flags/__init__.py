"""The flags of both engines, of any age, as settings."""
