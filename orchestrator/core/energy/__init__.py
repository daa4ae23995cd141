"""Energy: joules from what devices tell, shared out to requests and models, and what that costs."""
