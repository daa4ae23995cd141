"""orch on a real systemd: a Debian root, booted with systemd-nspawn."""
