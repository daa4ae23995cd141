from __future__ import annotations

import pytest

from orchestrator.core.dialect.owned_flags import REFUSED_FLAGS, find_refused_flags, flag_in_word
from tests.support import FIXTURES

HELP = FIXTURES / "help"


@pytest.mark.parametrize("flag", sorted(REFUSED_FLAGS))
def test_every_owned_spelling_is_refused_alone_and_with_a_value(flag: str) -> None:
    assert [(at, name) for at, name, _ in find_refused_flags(["--ok", flag])] == [(1, flag)]
    assert find_refused_flags([f"{flag}=x"])


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--api_key", "x"], "--api-key"),
        (["--api_key=x"], "--api-key"),
        (["--api-key-anything-new"], "--api-key-anything-new"),
        (["--ssl_key_file=x"], "--ssl-key-file"),
        (["--log-prompts-dir"], "--log-prompts-dir"),
        (["--no-log-jsonl"], "--no-log-jsonl"),
        (["--models-preset"], "--models-preset"),
        (["--mcp-servers-json"], "--mcp-servers-json"),
        (["--cors-origins"], "--cors-origins"),
        (["--gpt-oss-20b-default"], "--gpt-oss-20b-default"),
        (["--HOST"], "--HOST"),
        ([" --host"], "--host"),
        (["--chat-template", "--host"], "--host"),
    ],
)
def test_other_spellings_and_members_of_a_family_are_refused(words: list[str], flag: str) -> None:
    assert [name for _, name, _ in find_refused_flags(words)] == [flag]


@pytest.mark.parametrize("words", [["--spec-default"], ["-ctxcp", "8"], ["--temp", "-1"], ["host"], ["-.5"], ["-"], []])
def test_what_orch_does_not_own_is_left_alone(words: list[str]) -> None:
    assert find_refused_flags(words) == []


def test_underscores_count_in_long_flags_only() -> None:
    assert flag_in_word("--n_cpu_moe=3") == "--n-cpu-moe"
    assert flag_in_word("-a_b") == "-a_b"


def test_no_flag_of_a_real_engine_with_such_a_name_is_missed() -> None:
    """The fixtures are the help texts of upstream b11434 and of the fork's 0.1.5 source distribution."""
    owned = (
        "host",
        "port",
        "path",
        "api",
        "ssl",
        "log-",
        "tools",
        "mcp",
        "agent",
        "hf-",
        "slot-save",
        "media",
        "models-",
    )
    flags = {
        part.strip(",")
        for file in HELP.glob("*.help.txt")
        for line in file.read_text().splitlines()
        for part in line[:60].split()
        if part.startswith("--") and line.lstrip().startswith("-")
    }
    named = {flag for flag in flags if flag.startswith(tuple(f"--{word}" for word in owned))}
    assert len(named) > 25
    assert {flag for flag in named if not find_refused_flags([flag])} == set()
