"""Profiles: settings and their values, files merged into one, combinations that are refused. No engine flags."""
