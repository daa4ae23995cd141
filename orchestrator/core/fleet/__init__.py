"""Which engine processes are to run, and what follows each event: lifecycle, ladder, restarts, switches. Not health."""
