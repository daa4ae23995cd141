"""An imported profile renders for the build at hand; what that build lacks is said."""

from __future__ import annotations

from orchestrator.core.importing.builds import settle_on_build
from orchestrator.core.importing.shell_script import import_shell
from tests.unit.core.dialect.fixture_builds import FORK_STAGES, UPSTREAM, build


def test_what_a_build_cannot_say_is_replaced_or_lost() -> None:
    [entry] = import_shell("llama-server -m /m/a.gguf -c 4096 -ctk turbo3 -ctv q8_0 -fa on", {}).entries
    rendered = settle_on_build(entry, build(UPSTREAM), "the build")
    assert rendered is not None and entry.document["kv"] == {"k": "q4_0", "v": "q8_0"}
    assert [each.fate for each in entry.findings if each.source == "kv.k = turbo3"] == ["changed"]


def test_arguments_that_a_build_does_not_take_are_lost_one_by_one() -> None:
    [entry] = import_shell("llama-server -m /m/a.gguf --timeout 9 --prio 2", {}).entries
    entry.document["engine"]["upstream"]["extra_args"] += ["--gone", "1"]
    rendered = settle_on_build(entry, build(UPSTREAM), "the build")
    assert rendered is not None and rendered.argv[-4:] == ("--timeout", "9", "--prio", "2")
    assert [each.source for each in entry.findings if each.fate == "lost"] == ["--gone 1"]


def test_old_spellings_of_the_fork_start_on_its_new_build() -> None:
    [entry] = import_shell("ik_llama.cpp/build/bin/llama-server -m /m/a.gguf -fa -fmoe -mtp --draft-max 4", {}).entries
    rendered = settle_on_build(entry, build(FORK_STAGES), "the build")
    assert rendered is not None
    assert "mtp:n_max=4,p_min=0.0" in " ".join(rendered.argv)
