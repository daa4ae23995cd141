"""The verbs that start, stop, switch and watch what runs."""
