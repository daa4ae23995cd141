"""Which engines there are and what each accepts: found, probed, rendered. Knows nothing of the daemon."""
