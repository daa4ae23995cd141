"""How fast a start would be: forecasts from what was measured on this machine, and what cards can do at most."""
