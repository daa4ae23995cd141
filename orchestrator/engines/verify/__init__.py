"""Runs an engine to see whether it computes rightly: on models whose answers are known, and on the user's own."""
