"""`orch vram`: who holds device memory, and how the desktop gives its share back."""
