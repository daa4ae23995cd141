"""Where the hub is, and with which token it is asked: checked here, because its library takes any text to be right."""

from __future__ import annotations

import os
from urllib.parse import quote, urlsplit

from orchestrator import __version__
from orchestrator.core.errors import UsageError

HUB = "https://huggingface.co"


def endpoint() -> str:
    """Return the hub's address, HF_ENDPOINT's if it is set.

    :raises UsageError: when that is no address
    """
    text = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUB
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False

    if not valid:
        raise UsageError(
            "HF_ENDPOINT is no address of a hub",
            details=(f"`{text[:100]}`; expected http:// or https:// with a host, and perhaps a port and a path",),
            hint=f"unset it for {HUB}",
        )

    return text


def file_url(repository: str, path: str) -> str:
    """Return where a file of a repository's main branch is."""
    return f"{endpoint()}/{repository}/resolve/main/{quote(path)}"


def request_headers() -> dict[str, str]:
    """Return what every request for a file has; the client leaves the token out on another host than the hub."""
    headers = {"user-agent": f"llama-orch/{__version__}", "accept-encoding": "identity"}
    if secret := token():
        headers["authorization"] = f"Bearer {secret}"

    return headers


def token() -> str | None:
    """Return the user's token: HF_TOKEN's, or the one that `hf auth login` has kept; None without one.

    :raises UsageError: when it cannot be one
    """
    from huggingface_hub import get_token

    found = get_token()
    if found is not None and not (found.isascii() and found.isprintable() and " " not in found):
        raise UsageError(
            "the token for the hub holds characters that no token has",
            details=("HF_TOKEN, or the file that `hf auth login` keeps",),
            hint="set HF_TOKEN to the token as its page shows it",
        )

    return found
