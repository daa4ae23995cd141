"""Who holds device memory, what would free it, and how a desktop gives back its share. No I/O."""
