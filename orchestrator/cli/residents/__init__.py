"""Verbs that concern one profile among those that are loaded at a time."""
