"""From neutral settings to one build's argv and environment, and what a build says it accepts. No profile files."""
