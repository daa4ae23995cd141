"""`orch-embedded-server`: upstream's own server from the `xllamacpp` wheel, behind llama-server's command line."""
