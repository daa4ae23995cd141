"""Names of profiles for what is named otherwise."""

from __future__ import annotations

import re
from collections.abc import Collection


def slug(text: str) -> str:
    """Return a name that a profile may have, as near to the text as it goes."""
    found = re.sub(r"[^a-z0-9._-]+", "-", text.lower())
    found = re.sub(r"\.{2,}", ".", found).strip("-._")[:64].rstrip("-._")
    return found or "model"


def model_name(path: str) -> str:
    """Return what a model file is called: without its folder, its suffix and its number in a split."""
    stem = re.split(r"[/\\]", path)[-1]
    stem = re.sub(r"\.gguf$", "", stem, flags=re.IGNORECASE)
    return re.sub(r"-\d{5}-of-\d{5}$", "", stem)


def free_name(wanted: str, taken: Collection[str]) -> str:
    """Return the name, with a number where it is taken."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted[:60]}-{number}", number + 1

    return name
