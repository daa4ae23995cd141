"""One start: its plan as the engine may place it, what starts really took, and what their fits are given, its CPUs."""
