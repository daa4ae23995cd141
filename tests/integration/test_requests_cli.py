"""Requests over the control API and the command line, on a real engine: listed, cancelled, kept with their names."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support import Home, new_home, until

PROFILE = """\
schema = 1
model = "orch:demo"
engine = "embedded"
[context]
size = 131072
parallel = 4
[cpu]
threads = 1
threads_batch = 1
"""
ENDLESS = {"prompt": "A supervisor", "n_predict": -1, "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with new_home() as home:
        home.profile("one", PROFILE)
        keys = home.write(
            "config/keys", "# ours\n\nlaptop: key-of-laptop\nci: key-of-ci   # the build machine\nplain-key\n"
        )
        home.write("config/orch.toml", f'[gateway]\napi_key_file = "{keys}"\n')
        home.serve("one")
        home.ready("one")
        yield home


@contextmanager
def under_way(home: Home, name: str, key: str, **more: object) -> Iterator[list[bytes]]:
    """A request that does not end by itself; what has come of it, once it has ended."""
    address = urlsplit(home.url)
    body = json.dumps(ENDLESS | more).encode()
    head = f"POST /completion HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {name}\r\n"
    head += f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    client = socket.create_connection((address.hostname, address.port))
    parts: list[bytes] = []

    def read() -> None:
        while part := client.recv(65536):
            parts.append(part)

        client.close()

    reader = threading.Thread(target=read)
    client.sendall(head.encode() + body)
    reader.start()
    try:
        until(lambda: name in ids(home), f"{name} is listed")
        yield parts
    finally:
        if name in ids(home):
            home.control("/v1/requests/cancel", {"id": name})

        reader.join(30)
        assert not reader.is_alive()


def listed(home: Home) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.control("/v1/requests")["requests"]
    return found


def ids(home: Home) -> list[str]:
    return [each["id"] for each in listed(home)]


def test_one_of_two_streams_is_listed_and_cancelled_by_the_command(home: Home) -> None:
    with under_way(home, "runaway", "key-of-laptop", stream=True) as runaway, under_way(
        home, "good", "plain-key", stream=True
    ) as good:  # fmt: skip
        until(lambda: all(each["output_tokens"] for each in listed(home)), "the engine's slots tell tokens")
        rows = {each["id"]: each for each in home.orch_json("requests")["requests"]}
        assert (rows["runaway"]["client"], rows["good"]["client"]) == ("laptop", None)
        assert rows["runaway"]["state"] == "answering"
        table = home.orch("requests").stdout
        assert "runaway" in table and "laptop" in table and "/completion" in table
        assert home.orch("cancel", "runaway").stdout.startswith("cancelled runaway")
        until(lambda: ids(home) == ["good"], "it has ended")
        before = len(good)
        until(lambda: len(good) > before, "the other one goes on")
        assert home.orch("cancel", str(rows["good"]["number"])).returncode == 0

    assert b'"code":"cancelled"' in b"".join(runaway)
    events = [json.loads(line) for line in home.orch("events", "--json").stdout.splitlines()]
    told = [each["message"] for each in events if each["kind"] == "request_cancelled"]
    assert any("runaway of laptop (/completion)" in each for each in told)


def test_what_is_not_there_is_an_error_with_a_hint(home: Home) -> None:
    done = home.orch("cancel", "nothing\x1b[31m", check=False)
    assert done.returncode == 1
    assert "orch requests" in done.stderr
    assert "\x1b" not in done.stderr
    assert "no request waits or runs" in home.orch("requests").stderr


def test_clients_are_in_the_history_by_their_names(home: Home) -> None:
    for key, count in (("key-of-ci", 2), ("plain-key", 1)):
        for _ in range(count):
            headers = {"x-api-key": key}
            status, *_ = home.request(
                "POST", "/completion", {"prompt": "x", "n_predict": 1}, url=home.url, headers=headers
            )
            assert status == 200

    status, *_ = home.request("POST", "/completion", {}, url=home.url, headers={"x-api-key": "wrong"})
    assert status == 401

    def groups() -> dict[str | None, int]:
        return {each["client"]: each["requests"] for each in home.orch_json("stats", "--by", "client")["groups"]}

    until(lambda: groups().get("ci") == 2 and groups().get(None, 0) >= 1, "both are in the history")
    page = home.request("GET", "/metrics", None, url=home.url, headers={"x-api-key": "plain-key"})[2].decode()
    assert 'orch_client_requests_total{client="ci",outcome="complete"} 2.0' in page
    assert "orch_keys_refused_total 1.0" in page
    assert "key-of-ci" not in page
