"""Requests as clients name and see them: their ids, the list of those that wait and run, and the limits of a key."""
