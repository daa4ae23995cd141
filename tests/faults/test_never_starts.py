"""A model that can never start is said so once, in a way that clients do not repeat; what is mended counts at once."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.faults.lab import QUICK, Answer, Lab
from tests.support import until

CHAT = "/v1/chat/completions"
BODY = {"max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}


def ask(lab: Lab, model: str, path: str = CHAT, content: str = "hi") -> Answer:
    body = {**BODY, "model": model, "messages": [{"role": "user", "content": content}]}
    return Answer(*lab.request("POST", path, body, url=lab.url))


def check_final(answer: Answer, told: str) -> None:
    """An answer that no SDK repeats, in orch's own words."""
    assert answer.status == 424
    assert answer.headers["x-should-retry"] == "false"
    assert "retry-after" not in answer.headers
    assert told in answer.json["error"]["message"]


def cut(lab: Lab) -> None:
    path = os.path.join(lab.root, "b.gguf")
    os.truncate(path, os.path.getsize(path) // 2)


def not_a_model(lab: Lab) -> None:
    lab.write("b.gguf", "<html>login first</html>")


def unknown_engine(lab: Lab) -> None:
    lab.model("b", engine="nobody")


def unheard_of(lab: Lab) -> None:
    lab.model("b", more='[multimodal]\nmmproj = "/no/such/file.gguf"\n[speculative]\ntype = "mtp"\n')


def exits(lab: Lab) -> None:
    say = ["llama_model_load: error loading model: unknown model architecture: 'newer'"]
    lab.model("b", {"die_at": "load", "say": say})


def mend(lab: Lab) -> None:
    """As it was when it could start; the new file is another one, as a download's or an editor's."""
    path = os.path.join(lab.root, "b.gguf")
    shutil.copyfile(os.path.join(lab.root, "a.gguf"), path + ".new")
    os.replace(path + ".new", path)
    lab.model("b")


@pytest.mark.parametrize("serving", [False, True])
@pytest.mark.parametrize("damage", [cut, not_a_model, unknown_engine, unheard_of, exits])
def test_what_can_never_start_is_final_until_it_is_mended(lab: Lab, damage: object, serving: bool) -> None:
    assert callable(damage)
    lab.model("a")
    lab.model("b")
    damage(lab)
    lab.serve(*(["a"] if serving else []))
    if serving:
        lab.ready("a")

    for path in (CHAT, "/v1/messages", CHAT):
        check_final(ask(lab, "b", path), "b")

    if serving:
        assert ask(lab, "a").status == 200

    mend(lab)
    began = time.monotonic()
    assert ask(lab, "b").status == 200, lab.daemon_log()
    assert time.monotonic() - began < 20


def test_a_start_that_a_person_asked_for_fails_as_finally_and_is_mended_as_quickly(lab: Lab) -> None:
    lab.model("a")
    lab.model("b")
    exits(lab)
    lab.serve("b")
    lab.state("failed")
    check_final(ask(lab, "b"), "newer")
    mend(lab)
    assert ask(lab, "b").status == 200


def test_a_profile_that_was_written_a_moment_ago_is_there(lab: Lab) -> None:
    lab.model("a")
    lab.serve("a")
    lab.ready("a")
    assert ask(lab, "b").status == 404
    lab.model("b", more='aliases = ["gpt-4o"]\n')
    assert lab.request("GET", "/v1/models/b", url=lab.url)[0] == 200
    assert ask(lab, "gpt-4o").status == 200


def test_what_is_not_there_is_looked_for_a_few_times_a_second_at_most(lab: Lab) -> None:
    lab.model("a")
    lab.serve("a")
    lab.ready("a")
    assert lab.daemon is not None
    before = cpu_s(lab.daemon.pid)
    for index in range(20):
        assert lab.request("GET", f"/v1/models/nobody-{index}", url=lab.url)[0] == 404

    assert cpu_s(lab.daemon.pid) - before < 2
    assert ask(lab, "a").status == 200


def test_a_request_that_killed_engines_is_answered_once_what_runs_has_changed(lab: Lab) -> None:
    lab.replayed.add("r1")
    lab.run("m", faults=[{"poison": "POISON", "signal": "ABRT"}] * 2 + [{}])
    assert lab.ask("r1", prompt="POISON").status == 502
    lab.ready("m")
    assert lab.ask("r2", prompt="POISON").status == 502
    (entry,) = lab.orch_json("quarantine", "list")
    assert (entry["route"], entry["profile"], entry["refused"]) == ("/completion", "m", True)
    lab.model("m", [{}], more="[context]\nsize = 1024\n")
    lab.orch("reload")
    lab.ready("m")
    assert lab.ask("r3", prompt="POISON").status == 200


def test_a_quarantine_can_be_cleared(lab: Lab) -> None:
    lab.replayed.add("r1")
    lab.run("m", faults=[{"poison": "POISON", "signal": "ABRT"}] * 2 + [{}])
    assert lab.ask("r1", prompt="POISON").status == 502
    lab.ready("m")
    assert lab.ask("r2", prompt="POISON").status == 502
    assert lab.orch("quarantine", "clear", check=False).returncode == 2
    assert lab.orch("quarantine", "clear", "000000000000", check=False).returncode == 2
    (entry,) = lab.orch_json("quarantine", "list")
    lab.orch("quarantine", "clear", entry["id"])
    assert lab.ask("r3", prompt="POISON").status == 200
    assert lab.orch_json("quarantine", "list") == []
    assert entry["id"] in lab.events("quarantine_cleared")[0]


def test_a_load_is_seen_in_all_views(lab: Lab) -> None:
    lab.configure(QUICK + '[residency]\npolicy = "one"\n')
    lab.model("a")
    lab.model("b", {"load_s": 4.0})
    lab.serve("a")
    lab.ready("a")
    waiting = lab.begin_asking("r", model="b")
    until(lambda: lab.status()["switching"], "the switch has begun")
    models = {
        each["id"]: each["status"]["value"]
        for each in Answer(*lab.request("GET", "/v1/models", url=lab.url)).json["data"]
    }
    running = {
        each["model"]: each["state"] for each in Answer(*lab.request("GET", "/running", url=lab.url)).json["running"]
    }
    text = lab.orch("status").stdout
    assert lab.status()["switching"], "too slow to say anything"
    assert models["b"] == "loading"
    assert running["b"] == "starting"
    assert "switching to b@fake-upstream" in text
    assert "switching to b@fake-upstream" in lab.control("/v1/frame?points=1&requests=1")["status"]["progress"]
    assert waiting.result().status == 200


def cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()

    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
