"""Decisions about the machine that orch is set up on: building engines, systemd units, the findings of the doctor."""
