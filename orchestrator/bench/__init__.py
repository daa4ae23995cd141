"""`orch bench` as it runs: it drives the daemon by the control API, and asks the gateway as any client does."""
