from __future__ import annotations

import json
import re

import pytest

from orchestrator.core.config import CONFIG_SETTINGS, Config
from tests.support import ROOT

TEXT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)\.(\w+)` \| (\S+) \|", TEXT, re.MULTILINE)


def test_the_document_has_rows() -> None:
    assert len(ROWS) > 10


@pytest.mark.parametrize(("table", "key", "default"), ROWS)
def test_each_documented_key_exists_and_has_the_documented_default(table: str, key: str, default: str) -> None:
    assert f"{table}.{key}" in {setting.path for setting in CONFIG_SETTINGS}
    assert getattr(getattr(Config(), table), key) == written(default)


def written(default: str) -> object:
    """A default as the document has it: a number, true or false, a quoted word, or `empty`."""
    return "" if default == "empty" else json.loads(default.strip("`"))
