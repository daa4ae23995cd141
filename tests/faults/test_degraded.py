"""Engines that go on without what they were asked for, with a green /health."""

from __future__ import annotations

from typing import Any

from tests.faults.lab import Lab
from tests.support import until

NO_CUDA = "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"
IGNORED = "warning: no usable GPU found, --gpu-layers option will be ignored"
VOCABS = "common_speculative_impl_draft_simple: the target and draft vocabs are not compatible"
LAYERS = '[memory]\ngpu_layers = "all"\n'


def saying(lines: tuple[str, ...], starts: int = 1000) -> str:
    """A wrapper that has an engine say these lines first, for so many starts."""
    said = "; ".join(f"echo '{line}' >&2" for line in lines)
    count = 'n=$(($(cat "$0.n" 2>/dev/null || echo 0) + 1)); echo $n > "$0.n"'
    return (
        f'case "$*" in *--help*|*--version*) ;; *) {count}; [ $n -gt {starts} ] || {{{{ {said}; }}}};; esac\nexec {{}}'
    )


def test_a_driver_that_comes_late_is_waited_for(lab: Lab) -> None:
    lab.fake("boots", "upstream", wrapper=saying((NO_CUDA, IGNORED), starts=2))
    lab.model("m", engine="boots", more=LAYERS)
    lab.serve("m")
    status = lab.ready("m")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["driver", "driver", "ready"]
    assert status["attempts"][0]["evidence"] == IGNORED and "found no device" in status["attempts"][0]["cause"]
    assert status["notice"] is None and not lab.events("degraded")
    lab.ask("r").check_complete(8)


def test_a_device_that_never_comes_spends_the_budget_and_no_client_is_served_slowly(lab: Lab) -> None:
    lab.configure("[restart]\nfirst_delay_s = 0.01\nmax_delay_s = 0.02\nintensity = 3\ncooldown_s = 60\n")
    lab.fake("none", "fork", wrapper=saying((NO_CUDA,)))
    lab.model("m", engine="none", more="[memory]\nfit = true\n")
    lab.serve("m")
    status = lab.state("failed")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["driver"] * 3
    assert "require_device" in status["hint"]
    assert lab.requests("m", "accepted") == []


def test_without_a_device_it_serves_where_the_profile_lets_it_and_says_so(lab: Lab) -> None:
    lab.fake("slow", "upstream", wrapper=saying((NO_CUDA, IGNORED)))
    lab.model("m", engine="slow", more=f"{LAYERS}require_device = false\n")
    lab.serve("m")
    status = lab.ready("m")
    assert IGNORED in status["notice"] and "on the processor" in status["notice"]
    (told,) = lab.events("degraded")
    assert IGNORED in told
    lab.ask("r").check_complete(8)
    assert degraded(lab) == ['orch_degraded{engine="slow",kind="layers_ignored",profile="m"} 1.0']


def test_a_lost_drafter_is_a_notice(lab: Lab) -> None:
    lab.fake("drafts", "upstream", wrapper=saying((VOCABS,)))
    lab.model("m", engine="drafts", more='[speculative]\ntype = "ngram-simple"\n')
    lab.serve("m")
    assert VOCABS in lab.ready("m")["notice"]
    until(lambda: lab.events("degraded"), "it is told")


def test_an_engine_with_nothing_to_say_has_no_notice(lab: Lab) -> None:
    assert lab.run("m", more=LAYERS)["notice"] is None
    assert degraded(lab) == []


def degraded(lab: Lab) -> list[Any]:
    page = lab.request("GET", "/metrics", url=lab.url)[2].decode()
    return [line for line in page.splitlines() if line.startswith("orch_degraded{")]
