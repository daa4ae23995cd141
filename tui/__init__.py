"""The dashboard. It talks to the daemon through `orchestrator.api` alone."""
