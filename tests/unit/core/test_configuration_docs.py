"""docs/configuration.md has each key of orch.toml with its default, and no other."""

from __future__ import annotations

import json
import re

import pytest

from orchestrator.core.config import CONFIG_SETTINGS, Config
from tests.unit.core.config_document import DOCUMENT, written

TEXT = DOCUMENT.read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)\.(\w+)` \| .*? \| `(.+?)` \| (.+) \|$", TEXT, re.MULTILINE)
PATHS = [setting.path for setting in CONFIG_SETTINGS]


def test_the_table_is_what_the_code_says() -> None:
    """After a change of a key: `python -m tests.unit.core.config_document`."""
    assert written(TEXT) == TEXT


def test_each_key_has_one_row_in_the_order_of_the_code() -> None:
    assert [f"{table}.{key}" for table, key, *_ in ROWS] == PATHS
    assert len(ROWS) > 10


@pytest.mark.parametrize(("table", "key", "default", "meaning"), ROWS)
def test_each_documented_key_exists_and_has_the_documented_default(
    table: str, key: str, default: str, meaning: str
) -> None:
    assert f"{table}.{key}" in PATHS
    value = getattr(getattr(Config(), table), key)
    assert (list(value) if isinstance(value, tuple) else value) == json.loads(default)
    assert meaning


def test_the_text_names_no_key_that_is_not_there() -> None:
    tables = "|".join(sorted({path.partition(".")[0] for path in PATHS}))
    named = set(re.findall(rf"`((?:{tables})\.\w+)", TEXT))
    assert named <= set(PATHS), named - set(PATHS)
