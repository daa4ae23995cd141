"""What stays loaded: who asks for what, how it is used, and what the fleet is told of that."""
