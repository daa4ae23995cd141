"""Coding agents: each is told to write a file, calls its own tool for it, and says so when it is done."""

from __future__ import annotations

import subprocess

import pytest

from tests.clients.conftest import HELLO, LINE, PROFILE
from tests.clients.guide import Guide
from tests.support import Home

pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(name, marks=pytest.mark.client(name))
        for name in ("claude-code", "codex", "opencode", "continue", "cline")
    ],
)
def test_an_agent_writes_a_file_with_its_own_tool(guide: Guide, agent: str) -> None:
    printed = guide.follow()
    assert (guide.project / "hello.txt").read_text().strip() == LINE, printed
    assert "The tool was used." in printed


@pytest.mark.client("aider")
def test_aider_edits_a_file_and_commits_it(guide: Guide) -> None:
    printed = guide.follow()
    assert (guide.project / "hello.txt").read_text().strip() == LINE, printed
    log = subprocess.run(
        ["git", "log", "--format=%s", "--", "hello.txt"], cwd=guide.project, capture_output=True, text=True, check=True
    )
    assert log.stdout.strip() == HELLO["chat"], "the message is the weak model's"


@pytest.mark.client("opencode")
def test_opencode_takes_the_other_model_by_name(guide: Guide) -> None:
    guide.follow()
    assert HELLO["chat"] in guide.run("sh", "opencode run -m orch/chat 'Say hello'")


@pytest.mark.client("codex")
def test_codex_takes_the_other_model_by_name(guide: Guide) -> None:
    guide.follow()
    assert HELLO["chat"] in guide.run("sh", "ORCH_KEY=none codex exec -m chat 'Say hello'")


@pytest.mark.client("claude-code")
def test_claude_code_says_at_once_why_a_model_cannot_start(guide: Guide, served: Home) -> None:
    """It repeats what it takes for an overload, ten times with half a minute between."""
    cut_off = served.write("cut-off.gguf", "GGUF")
    served.profile("broken", PROFILE.format(model=cut_off, engine="embedded", more=""))
    asking = f"ANTHROPIC_BASE_URL=http://{guide.address} ANTHROPIC_AUTH_TOKEN=none"
    printed = guide.run("sh", f"{asking} timeout 60 claude --model broken -p 'Say hello' || test $? = 1")
    assert "424" in printed
    assert "cut-off.gguf" in printed


@pytest.mark.client("claude-code")
def test_claude_code_takes_the_other_model_by_name(guide: Guide) -> None:
    asking = f"ANTHROPIC_BASE_URL=http://{guide.address} ANTHROPIC_AUTH_TOKEN=none"
    assert HELLO["chat"] in guide.run("sh", f"{asking} claude --model chat -p 'Say hello'")
