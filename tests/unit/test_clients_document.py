"""docs/clients.md: each block has a test that runs it, each file can be read, each version is what is installed."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable

import pytest
from ruamel.yaml import YAML

from tests.clients.guide import DOCUMENT, Block, blocks
from tests.clients.installs import PACKAGES
from tests.support import ROOT
from tests.unit.test_docs import section

TESTS = "".join(
    path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "tests" / "clients").glob("*.py"))
    if path.name != "installs.py"
)
READERS: dict[str, Callable[[str], object]] = {"json": json.loads, "toml": tomllib.loads, "yaml": YAML(typ="safe").load}


def named(block: Block) -> str:
    return f"{block.client}-{block.language}"


def test_each_fence_of_the_document_names_its_client() -> None:
    fences = re.findall(r"^ *```\w+", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == len(blocks()) > 20


@pytest.mark.parametrize("client", sorted({block.client for block in blocks()}))
def test_each_block_is_run_by_a_test(client: str) -> None:
    assert re.search(rf'(client|blocks|following)\("{client}"|^ +for name in \(.*"{client}"', TESTS, re.MULTILINE)


@pytest.mark.parametrize("block", [block for block in blocks() if block.file], ids=named)
def test_each_file_in_the_document_can_be_read(block: Block) -> None:
    assert READERS[block.language](block.text)
    assert block.file.endswith((".json", ".toml", ".yaml"))


@pytest.mark.parametrize("client", PACKAGES)
def test_the_table_of_what_was_tested_has_the_version_that_is_installed(client: str) -> None:
    table = section(DOCUMENT.read_text(encoding="utf-8"), "What was tested")
    version = re.split("==|@", PACKAGES[client].requirements[0])[-1]
    assert re.search(rf"^\|.*(?<![\d.]){re.escape(version)}(?![\d.])", table, re.MULTILINE), version


def test_each_client_that_is_driven_has_a_test() -> None:
    assert [name for name in PACKAGES if f'"{name}"' not in TESTS] == []
