"""`--spec-type` of both engines and all ages: one type, a list, or the fork's stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.core.dialect.speculative import STAGE_KEYS
from orchestrator.core.importing.flags.flag_values import read_flag_value
from orchestrator.core.profile.settings import BY_PATH, SPECULATIVE_TYPES

_WORDS = {
    **{name: name for name in SPECULATIVE_TYPES}, "draft-simple": "draft", "draft-model": "draft", "draft-mtp": "mtp",
    "draft-eagle3": "eagle3", "draft-dflash": "dflash", "draft-dspark": "dspark", "nextn": "mtp",
}  # fmt: skip
_PATH_OF_KEY = {key: path for path, key in STAGE_KEYS.items()}


@dataclass(slots=True)
class SpeculationRead:
    """What one `--spec-type` says.

    :param settings: dotted keys and their values
    """

    settings: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    fault: str = ""


def read_spec_type(text: str, before: object) -> SpeculationRead:
    """Return the settings of a `--spec-type`, which adds to what an earlier one said.

    :param before: the type so far
    """
    read = SpeculationRead()
    types = [str(each) for each in before] if isinstance(before, list) else [before] if isinstance(before, str) else []
    for part in text.split(","):
        word, colon, option = part.strip().partition(":")
        if "=" in word and not colon:  # a further option of the stage before: `mtp:n_max=3,p_min=0`
            _read_option(word, read)
            continue

        kind = _WORDS.get(word.lower())
        if kind is None:
            read.fault = f"`{word}` is none of {', '.join(SPECULATIVE_TYPES)}"
            return read

        if kind not in types:
            types.append(kind)

        if colon:
            _read_option(option, read)

    types = [kind for kind in types if kind != "none"] or ["none"]
    read.settings = {"speculative.type": types[0] if len(types) == 1 else types, **read.settings}
    return read


def _read_option(text: str, read: SpeculationRead) -> None:
    key, _, value = text.partition("=")
    path = _PATH_OF_KEY.get(key)
    found = read_flag_value(BY_PATH[path], value) if path is not None else None
    if path is None or found is None or found.value is None:
        read.note = f"`{text}` is lost: no setting says it"
    else:
        read.settings[path] = found.value
