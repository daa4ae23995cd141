from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema
import pytest

from orchestrator.adapters.config.profile_files import shipped_directory
from orchestrator.core.profile.schema import profile_schema

SHIPPED = sorted(Path(shipped_directory()).glob("*.toml"))
VALIDATOR = jsonschema.Draft4Validator(profile_schema())


def errors_of(text: str) -> int:
    return len(list(VALIDATOR.iter_errors(tomllib.loads(text))))


def test_the_schema_is_one() -> None:
    jsonschema.Draft4Validator.check_schema(profile_schema())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.stem))
def test_every_shipped_profile_is_valid(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(tomllib.loads(path.read_text()))] == []


@pytest.mark.parametrize(
    "text",
    [
        "schema = 1\nengine = 'x'",
        "schema = 1\n[engine]\ndefault = 'x'\n[engine.y.memory]\nfit_margin = [1, 2]",
        "schema = 1\n[memory]\ngpu_layers = 'all'",
        "schema = 1\n[attention]\nflash = true",
        "schema = 1\n[speculative]\ntype = ['ngram-mod', 'mtp']",
        "schema = 1\n[environment]\nGGML_X = 1\n[engine.y.environment]\nGGML_X = '2'",
        "schema = 1\n[override_kv]\n'a.b' = true",
        "schema = 1\n[lora]\nadapters = ['a.gguf']\nscales = [0.5]",
        "schema = 1\n[memory]\ntensor_overrides = ['exps=CPU']",
        "schema = 1\n[chat]\ntemplate = '''{%\n%}'''\ntemplate_kwargs = { a = 1 }",
    ],
)
def test_what_orch_accepts_the_schema_accepts(text: str) -> None:
    assert errors_of(text) == 0


@pytest.mark.parametrize(
    "text",
    [
        "model = 'm'",
        "schema = 2",
        "schema = 1\nx = 1",
        "schema = 1\n[memory]\nfit_margn = 1",
        "schema = 1\n[memory]\nfit_margin = 0",
        "schema = 1\n[memory]\nfit_margin = []",
        "schema = 1\n[memory]\ngpu_layers = 'most'",
        "schema = 1\n[environment]\nGGML_X = true",
        "schema = 1\n[override_kv]\n'a.b' = [1]",
        "schema = 1\n[speculative]\ntype = ['mpt']",
        "schema = 1\n[memory]\ntensor_overrides = ['a=b,c=d']",
        "schema = 1\n[context]\nsize = true",
        "schema = 1\n[engine.y.memory]\nx = 1",
        "schema = 1\n[engine.y]\nmodel = 'm'",
        "schema = 1\n[recovery]\nmargins = [0]",
    ],
)
def test_what_orch_refuses_the_schema_refuses(text: str) -> None:
    assert errors_of(text) == 1
