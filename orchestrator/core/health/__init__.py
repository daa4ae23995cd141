"""Verdicts on an engine that runs: hung, slow, no longer drafting. Acting on them is the fleet's."""
