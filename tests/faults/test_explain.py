"""`orch explain` without a file says what the daemon said of the last failure, whatever else is in its logs."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from tests.faults.lab import QUICK, Lab
from tests.support import until

BAD_MODEL = "gguf_init_from_reader: invalid magic characters: 'oops', expected 'GGUF'"
HOST_OOM = "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 3103784960"


def explained(lab: Lab, *words: str) -> Any:
    return json.loads(lab.orch("explain", "--json", *words).stdout)


def test_a_failed_start_is_explained_by_its_own_reason_and_not_by_the_log_of_the_daemon(lab: Lab) -> None:
    lab.model("bad", {"die_at": "load", "say": [BAD_MODEL]})
    lab.serve("bad")
    lab.state("failed")
    lab.write("state/logs/daemon.log", "the daemon's own log, and the newest\n")
    found = explained(lab)
    assert (found["class"], found["action"], found["response"]) == ("bad_model", "give_up", "give_up")
    assert "invalid magic" in found["evidence"]
    assert (found["profile"], found["engine"], found["attempt"]) == ("bad", "fake-upstream", 1)
    assert found["exit"] == "exit code 1"
    assert found["next"] == "give up: the same start would fail the same way"
    assert explained(lab, os.path.join(lab.root, "state/logs/engine.log")) == found


def test_a_silent_death_is_not_explained_by_an_older_failure_of_another_profile(lab: Lab) -> None:
    lab.model("bad", {"die_at": "load", "say": [BAD_MODEL]})
    lab.serve("bad")
    lab.state("failed")
    lab.model("m")
    lab.up("m")
    os.kill(lab.ready("m")["pid"], signal.SIGKILL)
    until(lambda: len(lab.starts("m")) == 2, "it is started again")
    lab.ready("m")
    found = explained(lab)
    assert (found["profile"], found["class"], found["exit"]) == ("m", "killed", "signal 9")
    assert BAD_MODEL not in json.dumps(found)
    text = lab.orch("explain").stdout
    assert "how it ended:    signal 9" in text and "what orch did:   start again in" in text


def test_a_hang_at_the_start_is_explained_as_the_daemon_saw_it(lab: Lab) -> None:
    lab.configure(QUICK.replace("drain_s = 5.0", "drain_s = 5.0\nload_stall_s = 1.0"))
    lab.model("bad", {"die_at": "load", "say": [BAD_MODEL]})
    lab.serve("bad")
    lab.state("failed")
    lab.model("silent", {"load_s": 600.0, "load_moves": False})
    lab.up("silent")
    until(lambda: lab.events("backoff") or lab.status()["state"] in ("backoff", "failed"), "it was ended")
    found = explained(lab)
    assert (found["profile"], found["class"]) == ("silent", "engine_bug")
    assert "no progress" in found["message"]
    assert "invalid magic" not in json.dumps(found)


def test_host_memory_climbs_what_the_profile_allows_and_explain_says_so(lab: Lab) -> None:
    more = '[context]\nsize = 8192\n[recovery]\nthen = ["n_cpu_moe:+4", "kv:q8_0", "context:4096"]\n'
    lab.model("big", {"die_at": "load", "say": [HOST_OOM]}, more=more)
    lab.serve("big")
    until(lambda: len(lab.starts("big")) >= 4, "the steps are used up, and the budget is spent")
    argvs = [" ".join(start["argv"]) for start in lab.starts("big")[:4]]
    assert "q8_0" not in argvs[0] and "q8_0" in argvs[1] and "8192" in argvs[1]
    assert "q8_0" in argvs[2] and "4096" in argvs[2]
    assert not any("moe" in argv for argv in argvs)
    found = explained(lab)
    assert (found["class"], found["response"], found["requested_mib"]) == ("host_oom", "host_steps", 2960.0)


def test_what_a_client_sends_is_no_mark_of_orch(lab: Lab) -> None:
    forged = '[orch: judged {"class": "ok", "message": "all is well"}]'
    lab.model("bad", {"die_at": "load", "say": [forged, BAD_MODEL]})
    lab.serve("bad")
    lab.state("failed")
    assert explained(lab)["class"] == "bad_model"
