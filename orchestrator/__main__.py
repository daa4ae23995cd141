"""`python -m orchestrator` is the same program as `orch`."""

from orchestrator.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
