"""Screens that open over the dashboard: questions, choices, texts. Panels belong in `widgets`."""
