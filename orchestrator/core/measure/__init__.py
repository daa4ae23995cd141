"""Figures: rates from counters, thinned samples, sums over requests. No verdicts."""
