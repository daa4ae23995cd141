"""Writes the table of keys in docs/configuration.md: `python -m tests.unit.core.config_document`."""

from __future__ import annotations

import json

from orchestrator.core.config import CONFIG_SETTINGS, ENVIRONMENT, Config
from orchestrator.core.profile.settings import Setting
from tests.support import ROOT

DOCUMENT = ROOT / "docs" / "configuration.md"
BEGIN, END = "<!-- keys: begin -->\n", "<!-- keys: end -->\n"

_TYPES = {
    "bool": "true or false",
    "int": "whole number",
    "float": "number",
    "strings": "list of strings",
    "groups": "list of lists of strings",
}


def tables() -> str:
    """Return a table for each table of orch.toml."""
    variables = {path: name for name, path in ENVIRONMENT.items()}
    parts = []
    for table in dict.fromkeys(setting.table for setting in CONFIG_SETTINGS):
        rows = [f"### `[{table}]`\n", "| key | value | default | meaning |", "|---|---|---|---|"]
        for setting in CONFIG_SETTINGS:
            if setting.table == table:
                meaning = setting.doc + (
                    f"; `{variables[setting.path]}` overrides it" if setting.path in variables else ""
                )
                rows.append(f"| `{setting.path}` | {_value(setting)} | `{_default(setting)}` | {meaning} |")

        parts.append("\n".join(rows) + "\n")

    return "\n" + "\n".join(parts) + "\n"


def written(text: str) -> str:
    """Return the document with the tables that the code has."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    assert begin and end, f"{DOCUMENT.name} has lost its marks `{BEGIN.strip()}` and `{END.strip()}`"
    return head + BEGIN + tables() + END + tail


def _value(setting: Setting) -> str:
    if setting.choices is not None:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in setting.choices)

    kind = _TYPES.get(setting.types[0], setting.types[0])
    if setting.minimum is None or setting.maximum is None:
        return kind

    return f"{kind}, {setting.minimum:g} to {int(setting.maximum)}"


def _default(setting: Setting) -> str:
    default = getattr(getattr(Config(), setting.table), setting.key)
    return json.dumps(int(default) if isinstance(default, float) and default == int(default) else default)


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
