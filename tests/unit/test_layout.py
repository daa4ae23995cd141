"""What keeps a stranger oriented: small folders with a purpose, names that mean one thing, no circles of imports."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

MOST_FILES = 20
SOURCES = sorted(path for package in ("orchestrator", "tui") for path in (ROOT / package).rglob("*.py"))
FOLDERS = sorted({path.parent for path in SOURCES})


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a file imports, those in functions and for the type checker alone included."""
    modules = {module_of(each) for each in SOURCES}

    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in inner)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_a_folder_is_small_and_says_what_belongs_in_it(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_FILES
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


def test_each_class_name_means_one_thing() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")

    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_no_module_imports_itself_by_way_of_others() -> None:
    imports = {module_of(path): set(imports_of(path)) for path in SOURCES}
    left = dict(imports)
    while done := [
        name
        for name, needed in left.items()
        if not needed & left.keys() or not any(name in others for others in left.values())
    ]:
        for name in done:
            del left[name]

    # Neither does anything lead on from what is left, nor does nothing lead to it: these are circles, and the ways
    # between them.
    assert {name: sorted(needed & left.keys()) for name, needed in left.items()} == {}
