"""What stays loaded: rules, who asks for what, how it is used, the memory, and what the fleet is told of all that."""
