"""What the lines are shown in."""
