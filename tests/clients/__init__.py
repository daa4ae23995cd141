"""Real clients against a real gateway, as docs/clients.md tells people to set them up."""
