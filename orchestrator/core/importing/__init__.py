"""What other programs are started with, read as profiles: command lines, llama-swap's YAML, the router's INI. Pure."""
