"""The dashboard's rates against what a client measures, on both real builds, and with speculation on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.engines.known.model import write_known_model
from orchestrator.engines.registry import Engine
from tests.integration.telemetry_support import check_agreement, frame, lasting, measure
from tests.support import Home, new_home, until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PROMPT = "A supervisor"
PROFILE = """\
schema = 1
model = "{model}"
engine = "{engine}"

[context]
size = 8192
parallel = 1

[cpu]
threads = 1
threads_batch = 1
"""
MTP = '\n[speculative]\ntype = "mtp"\ndraft_max = 3\ndraft_p_min = 0.0\n'


@pytest.fixture
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


def serve(home: Home, engine: Engine, architecture: str, more: str = "") -> None:
    name = engine.id
    home.env["ORCH_ENGINE_" + name.upper().replace("-", "_")] = engine.path
    path = os.path.join(home.root, "known.gguf")
    write_known_model(path, architecture)  # type: ignore[arg-type]
    home.profile("known", PROFILE.format(model=path, engine=name) + more)
    home.serve("known")
    until(lambda: home.status()["state"] == "ready", f"{name} is ready")


def test_the_rate_of_a_request_is_what_its_client_measured(home: Home, engine: Engine) -> None:
    serve(home, engine, "llama")
    frame(home)
    check_agreement(home, PROMPT)
    # The fork is asked every other second: a stream that outlasts two of those.
    tokens = lasting(home.url, PROMPT, 6.0, most=7000)
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(measure, home.url, PROMPT, tokens)
        shown = until(lambda: [each for each in (frame(home),) if each["rates"]["decode_tok_s"]], "a rate is shown")[0]
        stream.result()

    assert max(point["decode_tok_s"] or 0.0 for point in frame(home)["points"]) > 0
    assert shown["slots"][0]["context_tokens"] == 8192
    assert shown["rates"]["kv_used"] is not None


def test_the_rate_with_speculation_is_what_the_client_measured(home: Home, upstream: Engine) -> None:
    serve(home, upstream, "qwen35moe", MTP)
    frame(home)
    check_agreement(home, PROMPT)
    shown = until(lambda: [each for each in (frame(home),) if each["rates"]["draft_acceptance"]], "drafts are shown")[0]
    row = shown["requests"][0]
    assert row["draft_tokens"] > 0
    assert shown["status"]["speed"]["draft_acceptance"] == pytest.approx(
        row["draft_accepted"] / row["draft_tokens"], abs=0.02
    )


def test_the_rate_of_the_fork_with_speculation_is_what_the_client_measured(home: Home, fork: Engine) -> None:
    """Its build of spring 2026 has no MTP for this model, and drafts from the text that went before."""
    serve(home, fork, "llama", '\n[speculative]\ntype = "ngram-simple"\ndraft_max = 4\n')
    frame(home)
    check_agreement(home, PROMPT)
    drafted = re.findall(r"draft acceptance rate = [\d.]+ \( *\d+ accepted / *(\d+) generated", engine_log(home))
    assert drafted and int(drafted[-1]) > 0


def engine_log(home: Home) -> str:
    return home.orch("logs", "-n", "2000").stdout
