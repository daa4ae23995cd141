"""The parts of `orch engines` that build, judge and watch: their verbs are in `cli/setup/engines.py`."""
