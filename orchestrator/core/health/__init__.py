"""Whether an engine that runs still works, and as fast as before. Verdicts only; acting on them is the fleet."""
