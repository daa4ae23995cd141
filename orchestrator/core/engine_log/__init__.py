"""The lines of an engine's log as typed events: the wording of both engines. Judgement is in `failure` and `health`."""
