"""What the documents and docstrings name is there: files, folders, links, types, targets and commands."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from orchestrator.cli.main import VERBS, build_parser
from orchestrator.core.errors import UsageError
from tests.support import ROOT
from tests.unit.test_layout import FOLDERS, SOURCES

FOLDERS_READ = ("orchestrator", "tui", "tests", "benchmarks", "docs", "profiles", "systemd")
FILES = sorted(ROOT.glob("*.md")) + sorted(path for each in FOLDERS_READ for path in (ROOT / each).rglob("*.*"))
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]
MODULES = [path for path in FILES if path.suffix == ".py"]
NAMES = {path.name for path in FILES}
BASES = (ROOT, ROOT / "orchestrator", ROOT / "tests", ROOT / "tests" / "fakes")
"""What a path in a text may be relative to, beside the folder of the text."""

_LAYERS = "adapters|api|cli|core|daemon|doctor|engines|gateway|orchestrator|tui"
_FILE = re.compile(r"(?<![\w./~$*-])((?:[\w*-]+/)*[\w*-]+\.py)\b")
_PLACE = re.compile(rf"(?<![\w./~$*-])((?:{_LAYERS})/\w+(?:/\w+)*)/?(?![\w./*-])")
"""A folder or a module of the source tree without its ending, `core/health/overlap`."""

_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")

FOREIGN = frozenset({"gguf-py/gguf/constants.py", "libnvml.py"})
"""Files of other projects."""


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def texts_of(path: Path) -> tuple[str, ...]:
    """The prose of a file: a document as a whole, the docstrings of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return (text,)

    if ".py" not in text and _PLACE.search(text) is None:
        return ()

    return tuple(
        node.value.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def is_there(name: str, folder: Path) -> bool:
    if "/" not in name and "*" not in name:
        return name in NAMES

    return any(next(base.glob(name), None) is not None for base in (folder, *BASES))


def missing(path: Path) -> Iterator[str]:
    for text in texts_of(path):
        for pattern in (_FILE, _PLACE):
            for name in pattern.findall(text):
                found = is_there(name, path.parent) or (pattern is _PLACE and is_there(f"{name}.py", path.parent))
                if name not in FOREIGN and not found:
                    yield name


@pytest.mark.parametrize("path", DOCUMENTS, ids=short)
def test_each_file_that_a_document_names_is_there(path: Path) -> None:
    assert sorted(set(missing(path))) == []


def test_each_file_that_a_docstring_names_is_there() -> None:
    found = {short(path): sorted(set(missing(path))) for path in MODULES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("path", DOCUMENTS, ids=short)
def test_each_link_leads_to_something_inside_the_repository(path: Path) -> None:
    for target in _LINK.findall(path.read_text(encoding="utf-8")):
        place = (path.parent / target).resolve()
        assert place.exists(), target
        assert place.is_relative_to(ROOT), target


def test_the_glossary_names_types_where_they_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|`]+) \| `(\w+)` \| `([\w/.]+)` \| (.+) \|$", section(text, "Glossary"), re.MULTILINE)
    assert 20 <= len(rows) <= 34
    for word, name, place, meaning in rows:
        tree = ast.parse((ROOT / "orchestrator" / place).read_text(encoding="utf-8"))
        assert name in set(defined(tree)), f"{word}: no `{name}` in {place}"
        assert meaning.strip()

    words = [word for word, *_ in rows]
    assert words == sorted(words, key=str.lower)


def test_the_map_of_folders_has_each_of_them() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w/]+)` \|", section(text, "Where to find things"), re.MULTILINE)
    skipped = {"orchestrator"}
    assert set(named) == {str(folder.relative_to(ROOT)).removeprefix("orchestrator/") for folder in FOLDERS} - skipped


def section(text: str, title: str) -> str:
    """Return what stands below a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def defined(tree: ast.Module) -> Iterator[str]:
    """Names of classes, functions and type aliases of a module."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize("path", DOCUMENTS, ids=short)
def test_each_target_of_make_that_a_document_names_is_in_the_makefile(path: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:\$ )?make ([a-z-]+)", text, re.MULTILINE)) | set(re.findall(r"`make ([a-z-]+)", text))
    assert named <= targets


def test_each_target_of_make_has_a_line_of_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  make ([\w-]+)", listed, re.MULTILINE) == re.findall(r"^([a-z-]+):", text, re.MULTILINE)


def test_each_module_is_named_after_one_thing() -> None:
    """A short form of a path is enough to find a module: `core/health/liveness.py`."""
    places = [short(path).removeprefix("orchestrator/") for path in SOURCES]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("path", DOCUMENTS, ids=short)
def test_each_command_in_a_document_is_understood(path: Path) -> None:
    for words in commands_in(path.read_text(encoding="utf-8")):
        verb, *rest = words
        assert verb in VERBS, words
        try:
            build_parser(verb).parse(rest)
        except UsageError as error:
            # A sentence may name a command without what it needs.
            assert "arguments are required" in error.message, (words, error.message)


def commands_in(text: str) -> Iterator[list[str]]:
    """The commands of orch in a document: lines of its examples, and code within a sentence."""
    fenced = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced.findall(text) for line in block.splitlines()]
    for line in lines + re.findall(r"`([^`]+)`", fenced.sub("", text)):
        found = re.match(r"\$? ?(?:sudo (?:-u orch )?)?(?:\S*/)?orch ([a-z].*)", line.replace("\n", " "))
        # `[OPTIONS]`, `install|status` and `...` stand for something.
        if found and not re.search(r"[\[|]|\.\.\.", found[1]):
            yield shlex.split(found[1], comments=True)


def test_the_readme_lists_each_verb() -> None:
    commands = section((ROOT / "README.md").read_text(encoding="utf-8"), "Commands")
    spans = " ".join(re.findall(r"`([^`]+)`", commands.partition("\n\nWhat")[0])).replace("orch ", "")
    assert {verb for verb in VERBS if not re.search(rf"\b{verb}\b", spans)} == set()


def test_each_test_that_a_document_names_is_there() -> None:
    there = set(re.findall(r"^\s*(?:async )?def (test_\w+)", "\n".join(map(Path.read_text, MODULES)), re.MULTILINE))
    named = {name for path in DOCUMENTS for name in re.findall(r"`(test_\w+)`", path.read_text(encoding="utf-8"))}
    assert named - there == set()
