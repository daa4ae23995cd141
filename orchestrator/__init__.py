"""orch: one OpenAI-compatible address, whichever llama-server is behind it."""

__version__ = "0.1.0"
