"""A virtual GPU for a test with a daemon: the card, and what `orch status` and `orch events` tell of the attempts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from tests.support import Home
from tests.virtual_gpu.memory import MIB
from tests.virtual_gpu.relay import Relay, relayed
from tests.virtual_gpu.server import RpcBuild, rpc_server


class Card(NamedTuple):
    """A device, and the margins and micro-batch to start with; memory in MiB."""

    reported: int
    granted: int
    margins: list[int]
    ubatch: int = 64


@contextmanager
def virtual_gpu(
    build: RpcBuild, card: Card, *, linger_s: float = 0.0, port: int = 0, clients: int = 1
) -> Iterator[Relay]:
    """
    :param clients: engines that may use it at a time: a real server takes one
    """
    reported, granted = card.reported * MIB, card.granted * MIB
    with ExitStack() as stack:
        servers = [stack.enter_context(rpc_server(build.rpc_server)) for _ in range(clients)]
        yield stack.enter_context(
            relayed(*servers, reported_bytes=reported, granted_bytes=granted, linger_s=linger_s, port=port)
        )


def settled(home: Home) -> Any:
    """The status once `orch up` of the profile `fitted` is over, however it ended."""
    home.orch("up", "fitted", check=False, timeout_s=120)
    return home.status()


def tried(status: Any) -> list[tuple[int | None, str]]:
    return [(attempt["margin_mib"], attempt["outcome"]) for attempt in status["attempts"]]


def events(home: Home) -> list[str]:
    """Kind and message of each."""
    return [line.split(maxsplit=1)[1] for line in home.orch("events").stdout.splitlines()]


def refused_in(evidence: str) -> int:
    """The bytes that the failing line names."""
    found = re.search(r"failed to allocate RPC0\S* buffer of size (\d+)", evidence)
    assert found, evidence
    return int(found[1])
