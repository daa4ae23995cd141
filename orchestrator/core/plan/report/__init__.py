"""A plan as people and scripts get it: words and rows, JSON, the matrix."""
