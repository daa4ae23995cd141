"""What goes wrong between orch and a hub, in words: where, what was found, and what to do."""

from __future__ import annotations

import os

import httpx2
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

from orchestrator.core.errors import OrchError, UsageError

TRANSPORT_ERRORS = (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled)
"""What the hub's client raises on purpose; an answer with an error's status is among them."""

_TOKEN_HINT = "set HF_TOKEN to a token that may read it (`hf auth login` keeps one)"


def hub_failure(error: Exception, what: str, url: str) -> OrchError:
    """Return the error to show for what a request to a hub ended with.

    :param what: was asked for, "the files of ORG/REPO"
    :param url: where, for the details
    """
    status = _status_of(error)
    if status is not None:
        return status_failure(status, what, url, gated=isinstance(error, GatedRepoError), cause=error)

    if isinstance(error, OfflineModeIsEnabled):
        return OrchError(f"{what} cannot be read offline", details=(url,), hint="unset HF_HUB_OFFLINE")

    if isinstance(error, httpx2.TooManyRedirects):
        return OrchError(f"{what}: the server sends the request round in a circle", details=(url,), hint=_later())

    if isinstance(error, httpx2.TimeoutException):
        return OrchError(f"{what}: the server did not answer in time", details=(url,), hint=_later())

    if isinstance(error, httpx2.ConnectError):
        return OrchError(
            f"{what}: no connection", details=(url, str(error)), hint="is there a network? HF_ENDPOINT names a mirror"
        )

    return OrchError(f"{what}: the connection failed", details=(url, str(error) or type(error).__name__), hint=_later())


def status_failure(
    status: int, what: str, url: str, *, gated: bool = False, cause: Exception | None = None
) -> OrchError:
    """Return the error for an answer with this status."""
    details = (f"{url}: HTTP {status}",)
    if gated:
        hint = f"accept its terms on its page, and {_TOKEN_HINT}"
        return UsageError(f"{what}: the repository is gated, {_token()}", details=details, hint=hint)

    if status in (401, 403) and not (isinstance(cause, RepositoryNotFoundError) and status == 401):
        return UsageError(f"{what}: the hub refuses access, {_token()}", details=details, hint=_TOKEN_HINT)

    if status in (401, 404, 410):
        hint = f"look whether it was moved or renamed; if it is private, {_TOKEN_HINT}"
        return UsageError(f"{what}: not there, or private", details=details, hint=hint)

    if status == 429:
        return OrchError(
            f"{what}: too many requests", details=details, hint="wait some minutes; with HF_TOKEN set more are allowed"
        )

    return OrchError(f"{what}: the hub failed", details=details, hint=_later())


def _status_of(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    return response.status_code if isinstance(response, httpx2.Response) else None


def _token() -> str:
    return "and the token in HF_TOKEN does not open it" if os.environ.get("HF_TOKEN") else "and HF_TOKEN is not set"


def _later() -> str:
    return "try again later" + (", or without HF_ENDPOINT" if os.environ.get("HF_ENDPOINT") else "")
