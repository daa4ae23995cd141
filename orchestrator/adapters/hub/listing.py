"""The files of a repository. Blocks; `huggingface_hub` is imported in this folder alone."""

from __future__ import annotations

import re

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import BlobLfsInfo, RepoFile

from orchestrator import __version__
from orchestrator.adapters.hub.address import endpoint, token
from orchestrator.adapters.hub.failures import TRANSPORT_ERRORS, hub_failure
from orchestrator.core.errors import OrchError
from orchestrator.core.plan.repository import RepositoryFile

TIMEOUT_S = 15.0
"""For each step of an answer."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def list_files(repository: str) -> tuple[RepositoryFile, ...]:
    """Return the files of a repository's main branch.

    :raises OrchError: when the hub does not tell: no network, no such repository, no access
    """
    what, url = f"the files of {repository}", f"{endpoint()}/{repository}"
    api = HfApi(endpoint=endpoint(), token=token() or False, library_name="llama-orch", library_version=__version__)
    try:
        return _list(api, repository)
    except TRANSPORT_ERRORS as error:
        raise hub_failure(error, what, url) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # an answer that is not a hub's
        raise OrchError(
            f"{what}: the answer is not a hub's",
            details=(url, str(error)[:200]),
            hint="is HF_ENDPOINT a hub's address?",
        ) from error


def _list(api: HfApi, repository: str) -> tuple[RepositoryFile, ...]:
    try:
        siblings = api.model_info(repository, files_metadata=True, timeout=TIMEOUT_S).siblings or ()
        return tuple(_file(each.rfilename, each.size, each.lfs) for each in siblings)
    except HfHubHTTPError as error:
        # Mirrors that serve files have the tree at least; the hub itself names what it has not got.
        if error.response.status_code != 404 or "x-error-code" in error.response.headers:
            raise

    tree = api.list_repo_tree(repository, recursive=True)
    return tuple(_file(each.path, each.size, each.lfs) for each in tree if isinstance(each, RepoFile))


def _file(path: object, size: object, lfs: BlobLfsInfo | None) -> RepositoryFile:
    """Return what an answer says of a file: its library hands on whatever stood there."""
    if not isinstance(path, str):
        raise ValueError(f"a file's name is {type(path).__name__}")

    sha256: object = lfs.sha256 if lfs is not None else None
    known = isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None
    return RepositoryFile(path, size if isinstance(size, int) and size >= 0 else None, str(sha256) if known else None)
