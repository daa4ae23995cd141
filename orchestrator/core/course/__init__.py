"""How fast a profile was over time: what was measured, on what, and whether it has become slower. Pure."""
