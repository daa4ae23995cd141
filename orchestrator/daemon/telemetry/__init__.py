"""What is sampled, counted and kept: devices, engines, requests, history, metrics."""
