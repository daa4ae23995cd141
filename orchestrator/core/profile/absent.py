"""What people look for and orch has not: what to do instead, for a key that no table has. Pure."""

from __future__ import annotations

import re

_PAGES = "pages of other origins have permission (CORS) where `gateway.allowed_origins` in orch.toml names them"
_IDLE = (
    "a model stays loaded: under `orch serve`, `orch down` gives its memory back, and a request that names a profile "
    "loads it again"
)
_TOGETHER = "one profile serves at a time: a request that names another one switches to it"
_VARIANTS = (
    "a name has no parameters of its own: send them with the request, or write a profile that `extends` this one"
)

_ABSENT = (
    (re.compile(r"(?:cors|allow(?:ed)?)_(?:\w+_)?origins?|cors(?:_\w+)?"), _PAGES),
    (re.compile(r"(?:idle|sleep)_\w+|ttl(?:_s)?|keep_alive\w*|unload_\w+"), _IDLE),
    (re.compile(r"resident|groups?|sets?|swap|exclusive|co_?resident"), _TOGETHER),
    (re.compile(r"variants?|presets?|set_?params"), _VARIANTS),
)


def explain_absent(key: str) -> str | None:
    """Return what to do instead of writing this key; None for one that nobody is known to look for."""
    word = key[:64].lower().replace("-", "_")
    return next((said for pattern, said in _ABSENT if pattern.fullmatch(word)), None)
