"""Textual widgets that draw lines: the panels and what they are made of. Making lines is the affair of `views`."""
