"""What stays loaded: the table that people write about it, and the memory by place that admission goes by."""
