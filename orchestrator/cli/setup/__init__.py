"""The verbs for what stands before anything runs: profiles, engines, configuration, the service."""
