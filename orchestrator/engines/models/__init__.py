"""Models on this machine's disk: fetched from repositories, listed with what uses them, removed."""
