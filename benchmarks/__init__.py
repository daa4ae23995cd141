"""Measurements; each prints the command and the machine it ran on."""
