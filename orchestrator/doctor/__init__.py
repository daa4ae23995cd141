"""Checks of the machine and the installation, for `orch doctor` and before a service is installed. Reads only."""
