"""Repositories of models on the Hugging Face hub, or on a mirror of it (`HF_ENDPOINT`): listed, read and fetched."""

import os

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
"""Else the library asks the hub, before anything else, for a list to tell it who is calling."""
