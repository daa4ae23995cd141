"""What `orch init` looks at, asks, shows and writes."""
