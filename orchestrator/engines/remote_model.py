"""Models in repositories: which there are, and their headers, read without downloading them."""

from __future__ import annotations

from orchestrator.adapters.gguf.reader import GgufError, GgufHeader, Spans, read_header
from orchestrator.adapters.gguf.splits import check_together
from orchestrator.adapters.hub.address import endpoint
from orchestrator.core.plan.repository import Contents, ListedModel, sort_files

LATER_PART_BYTES = 1 << 17
"""First window of a split model's later parts: they have no vocabulary, only the descriptions of some tensors."""


def look_into(repository: str) -> Contents:
    """Return what a repository has, by its files' names.

    :raises OrchError: when the hub does not tell
    """
    endpoint()  # the library cannot even be imported with a wrong one
    from orchestrator.adapters.hub.listing import list_files

    return sort_files(list_files(repository))


def read_remote(repository: str, model: ListedModel, spans: Spans | None = None) -> tuple[GgufHeader, ...]:
    """Read the headers of every file of a model in a repository, the first one (which has the metadata) first.

    :param spans: of another quantisation: most of the vocabulary is not fetched again
    :raises OrchError: when one of them cannot be read
    :raises GgufError: also when a part is missing, or one of them is not of this model
    """
    from orchestrator.adapters.hub.ranges import FIRST_WINDOW_BYTES

    if model.missing:
        count = len(model.files) + len(model.missing)
        raise GgufError(
            f"{len(model.missing)} of the {count} files of {model.quant} are missing in {repository}",
            details=model.missing[:8],
        )

    headers = tuple(
        _read(repository, file.path, LATER_PART_BYTES if number or spans else FIRST_WINDOW_BYTES, spans)
        for number, file in enumerate(model.files)
    )
    check_together(headers)
    return headers


def _read(repository: str, path: str, first_window: int, spans: Spans | None) -> GgufHeader:
    from orchestrator.adapters.hub.ranges import RemoteFile

    file = RemoteFile(repository, path, first_window)
    try:
        return read_header(file.name, file, spans)
    except GgufError as error:
        hint = "it is broken in the repository: take another quantisation, or another repository"
        raise GgufError(error.message, details=error.details, hint=hint) from error
