"""The engine processes that are to run, and the step after each event: lifecycle, ladder, switches. Not health."""
