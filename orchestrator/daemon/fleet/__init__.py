"""The owner of the fleet's state, and everything that acts on engine processes for it."""
