"""Whether an engine computes rightly: checks and verdicts, distributions, agreement of two engines."""
