"""GGUF files: headers read, small files written. Never tensor data of a real model."""
