"""What orch is made of beside itself: each file is pinned by its digest, and nothing is used that is not declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from tests.support import ROOT

OWN = {"orchestrator", "tui"}
INDEX = "https://pypi.org/simple"
FILES = "https://files.pythonhosted.org/"


def locked() -> list[dict[str, Any]]:
    packages: list[dict[str, Any]] = tomllib.loads(Path(ROOT, "uv.lock").read_text())["package"]
    return packages


def test_each_file_of_a_dependency_has_its_digest_in_the_lock() -> None:
    packages = locked()
    others = [package for package in packages if package["source"] != {"editable": "."}]
    assert len(others) == len(packages) - 1
    for package in others:
        assert package["source"] == {"registry": INDEX}, package["name"]
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files, package["name"]
        for file in files:
            assert file["url"].startswith(FILES) and re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]), file["url"]


def test_the_environment_is_made_from_the_lock_alone() -> None:
    words = [line for line in Path(ROOT, "Makefile").read_text().splitlines() if "uv sync" in line]
    assert words and all("--locked" in line.split() for line in words)


def test_what_is_imported_is_declared_or_part_of_what_is() -> None:
    project = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = {normal(re.split(r"[^\w.-]", each)[0]) for group in lists for each in group}
    parts = {part["name"] for each in locked() if each["name"] in declared for part in each.get("dependencies", [])}
    providers = packages_distributions()
    for name in sorted(imported() - OWN - sys.stdlib_module_names):
        found = {normal(each) for each in providers.get(name, [name])}  # not installed: an extra of that name
        assert found & (declared | parts), f"`{name}` is imported and not declared"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """The top-level names that the sources import, wherever in a file."""
    names = set()
    for package in OWN:
        for path in Path(ROOT, package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Import(names=aliases):
                        names |= {alias.name.partition(".")[0] for alias in aliases}
                    case ast.ImportFrom(module=str(module), level=0):
                        names.add(module.partition(".")[0])

    return names
