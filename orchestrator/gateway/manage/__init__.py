"""Routes by which clients of llama-swap, of llama-server's router and of Ollama see and manage what is loaded."""
