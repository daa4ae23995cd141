"""Where weights, caches and states are, their bytes, and what the engines' graphs hold while they compute."""
