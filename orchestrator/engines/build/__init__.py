"""Engines from source: fetched, compiled, proved, installed side by side."""
