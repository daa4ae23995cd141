"""From a profile to an answer, on the embedded engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from orchestrator.core.exit_codes import ALREADY_RUNNING
from orchestrator.engines.known.model import known_model
from orchestrator.engines.known.text import TEXT
from tests.support import ORCH, PATIENCE_S, Home, alive, new_home, until


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """A daemon with the demo ready."""
    with new_home() as home:
        home.demo_on_one_thread()
        home.serve("demo")
        home.ready("demo")
        yield home


@pytest.fixture
def fresh() -> Iterator[Home]:
    with new_home() as home:
        yield home


def test_the_status_names_what_runs(home: Home) -> None:
    status = home.status()
    assert (status["version"], status["state"], status["profile"], status["engine"]) == (1, "ready", "demo", "embedded")
    assert status["pid"] in home.tagged()
    assert status["gateway"]["url"].startswith("http://127.0.0.1:")
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["ready"]


def test_the_greedy_text_is_the_model_s_known_text(home: Home) -> None:
    answer = home.complete("A supervisor", 200)
    assert answer["content"] == known_model(stops=True).greedy_text("A supervisor", 200)


@pytest.mark.parametrize("body", [{"temperature": 0}, {"temperature": 0, "max_tokens": -1}])
def test_an_answer_whose_length_nobody_asked_for_is_the_text_once(home: Home, body: dict[str, object]) -> None:
    messages = [{"role": "user", "content": "hello"}]
    status, _, said = home.request("POST", "/v1/chat/completions", {"model": "demo", "messages": messages, **body})
    choice = json.loads(said)["choices"][0]
    assert (status, choice["finish_reason"]) == (200, "stop")
    assert choice["message"]["content"].strip() == TEXT.strip()


def test_the_draft_acceptance_is_the_computed_one(home: Home) -> None:
    answer = home.complete("A supervisor", 120)
    expected = known_model(stops=True).drafting("A supervisor", 120, draft_max=3)
    assert answer["timings"]["draft_n"] == pytest.approx(expected.drafted, abs=3)
    assert answer["timings"]["draft_n_accepted"] == pytest.approx(expected.accepted, abs=3)


def test_the_speed_is_computed_from_the_engine_s_counts(home: Home) -> None:
    timings = home.complete("A supervisor", 120)["timings"]
    speed = home.status()["speed"]
    assert speed["decode_tok_s"] == pytest.approx(
        (timings["predicted_n"] - 1) * 1000 / timings["predicted_ms"], rel=0.01
    )
    assert 0 < speed["draft_acceptance"] <= 1


def test_the_openai_client_chats_streams_lists_and_reads_errors(home: Home) -> None:
    import openai

    with openai.OpenAI(base_url=f"{home.url}/v1", api_key="none", max_retries=0) as client:
        messages: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
        whole = client.chat.completions.create(model="demo", messages=messages, max_tokens=40, temperature=0)
        parts = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(
                model="demo", messages=messages, max_tokens=40, temperature=0, stream=True
            )
            if chunk.choices
        ]
        assert whole.choices[0].message.content
        assert "".join(parts) == whole.choices[0].message.content
        assert "demo" in [model.id for model in client.models.list()]
        with pytest.raises(openai.NotFoundError) as error:
            client.chat.completions.create(model="demmo", messages=messages)

        assert error.value.code == "model_not_found"
        assert "demo" in error.value.message


def test_the_anthropic_client_chats_streams_and_reads_errors(home: Home) -> None:
    import anthropic

    with anthropic.Anthropic(base_url=home.url, api_key="none", max_retries=0) as client:
        messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": "hello"}]
        whole = client.messages.create(model="demo", messages=messages, max_tokens=40, extra_body={"temperature": 0})
        assert whole.content[0].type == "text"
        with client.messages.stream(
            model="demo", messages=messages, max_tokens=40, extra_body={"temperature": 0}
        ) as stream:
            assert "".join(stream.text_stream) == whole.content[0].text

        with pytest.raises(anthropic.NotFoundError) as error:
            client.messages.create(model="demmo", messages=messages, max_tokens=5)

        assert "demmo" in error.value.message


def test_the_engine_wants_a_key_that_clients_never_see(home: Home) -> None:
    with open(f"/proc/{home.status()['pid']}/cmdline", "rb") as file:
        words = file.read().decode().split("\0")

    port = words[words.index("--port") + 1]
    status, headers, _ = home.request("POST", "/completion", {"prompt": "x"}, url=f"http://127.0.0.1:{port}")
    assert status == 401
    with open(words[words.index("--api-key-file") + 1], encoding="ascii") as file:
        key = file.read()

    assert os.stat(words[words.index("--api-key-file") + 1]).st_mode & 0o777 == 0o600
    status, headers, body = home.request("POST", "/completion", {"prompt": "x", "n_predict": 1})
    assert status == 200
    assert key not in str(headers) + body.decode() and key not in " ".join(words)


def test_a_hostile_host_header_is_refused(home: Home) -> None:
    status, _, body = home.request("GET", "/v1/models", headers={"Host": "evil.example"})
    assert status in (403, 421), body


def test_an_oversized_header_is_refused(home: Home) -> None:
    status, _, _ = home.request("GET", "/v1/models", headers={"X-Long": "a" * 40000})
    assert status == 431


def test_a_second_daemon_is_refused_and_names_the_first(home: Home) -> None:
    assert home.daemon is not None
    done = home.orch("serve", check=False)
    assert done.returncode == ALREADY_RUNNING
    assert str(home.daemon.pid) in done.stderr


def test_logs_and_events_can_be_read(home: Home) -> None:
    assert "listening on" in home.orch("logs", "-n", "5000").stdout
    kinds = [json.loads(line)["kind"] for line in home.orch("events", "--json").stdout.splitlines()]
    assert kinds[:3] == ["started", "starting", "ready"]


def test_an_unknown_profile_is_refused_with_the_nearest_name(home: Home) -> None:
    done = home.orch("up", "dem", check=False)
    assert done.returncode == 2
    assert "demo" in done.stderr
    assert home.status()["state"] == "ready"


def test_up_starts_a_daemon_and_down_ends_both(fresh: Home) -> None:
    done = fresh.orch("up", "demo")
    assert "/v1" in done.stdout
    daemon_pid = fresh.status()["daemon_pid"]
    fresh.orch("down")
    assert fresh.orch("status", check=False).returncode == 3
    assert not alive(daemon_pid)
    assert fresh.tagged() == []


def test_a_killed_daemon_leaves_no_engine_and_the_next_start_is_clean(fresh: Home) -> None:
    fresh.orch("up", "demo")
    status = fresh.status()
    os.kill(status["daemon_pid"], signal.SIGKILL)
    until(lambda: not fresh.tagged(), "no engine process is left", timeout_s=2.0)
    fresh.orch("up", "demo")
    assert fresh.complete("A supervisor", 3)["content"]
    assert fresh.status()["pid"] != status["pid"]


def test_no_daemon_running_has_its_own_exit_code(fresh: Home) -> None:
    for verb in (["status"], ["down"], ["events"], ["switch", "demo"]):
        done = fresh.orch(*verb, check=False)
        assert done.returncode == 3, verb
        assert "no daemon is running" in done.stderr


def test_a_missing_model_file_is_named_and_leaves_nothing_running(fresh: Home) -> None:
    fresh.profile("gone", 'schema = 1\nmodel = "/nowhere/gone.gguf"\nengine = "embedded"\n')
    done = fresh.orch("up", "gone", check=False)
    assert done.returncode == 2
    assert "/nowhere/gone.gguf" in done.stderr
    assert "hint:" in done.stderr
    assert fresh.orch("status", check=False).returncode == 3


def test_a_truncated_model_is_named(fresh: Home) -> None:
    from orchestrator.engines.known.model import write_known_model

    path = os.path.join(fresh.root, "short.gguf")
    write_known_model(path)
    os.truncate(path, os.path.getsize(path) // 2)
    fresh.profile("short", f'schema = 1\nmodel = "{path}"\nengine = "embedded"\n')
    done = fresh.orch("up", "short", check=False)
    assert done.returncode == 1
    assert "missing" in done.stderr and path in done.stderr


def test_a_flag_that_the_build_lacks_is_an_error_that_names_it(fresh: Home) -> None:
    fresh.profile("odd", 'schema = 1\nmodel = "orch:demo"\nengine = "embedded"\n[kv]\nk = "q8_KV"\nv = "f16"\n')
    done = fresh.orch("up", "odd", check=False)
    assert done.returncode == 2
    assert "kv.k" in done.stderr and "embedded" in done.stderr


def test_the_gateway_s_port_in_use_is_an_error_that_names_it(fresh: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        fresh.env["ORCH_GATEWAY_PORT"] = str(taken.getsockname()[1])
        done = subprocess.run([*ORCH, "serve"], env=fresh.env, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 1
        assert str(taken.getsockname()[1]) in done.stderr


def test_a_terminated_daemon_ends_its_engine_and_remembers_what_ran(fresh: Home) -> None:
    fresh.demo_on_one_thread()
    fresh.serve("demo")
    fresh.ready("demo")
    assert fresh.daemon is not None
    fresh.daemon.send_signal(signal.SIGTERM)
    assert fresh.daemon.wait(PATIENCE_S) == 0
    assert fresh.tagged() == []
    fresh.serve()
    fresh.ready("demo")


def test_a_model_without_an_mtp_head_is_refused_before_it_is_started(fresh: Home) -> None:
    from orchestrator.engines.known.model import write_known_model

    path = os.path.join(fresh.root, "plain.gguf")
    write_known_model(path, "llama")
    fresh.profile("plain", f'schema = 1\nmodel = "{path}"\nengine = "embedded"\n[speculative]\ntype = "mtp"\n')
    done = fresh.orch("up", "plain", check=False)
    assert done.returncode == 2
    assert "MTP" in done.stderr
