"""A virtual GPU for real engine builds: `ggml-rpc-server` with a relay in front that limits its memory."""
