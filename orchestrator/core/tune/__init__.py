"""Which settings of a profile are faster for its use: the axes, the search and what it found. Pure."""
