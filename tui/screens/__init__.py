"""What opens over the dashboard."""
