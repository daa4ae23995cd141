"""Everything sampled, counted and kept: devices, engines, requests, history, metrics."""
