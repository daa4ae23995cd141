"""A lease whose daemon ends, on a socket that says exactly what such a daemon says."""

from __future__ import annotations

import os
import socket
import tempfile
import threading

import pytest

from orchestrator.bench.lease import HeldLease, LeaseEndedError
from tests.unit.api.test_client import read_request


def test_a_daemon_that_ends_without_an_answer_has_ended_the_lease() -> None:
    with tempfile.TemporaryDirectory(prefix="orch-") as folder, socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(folder, "control.sock")
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            lease, _ = listener.accept()
            with lease:
                read_request(lease)
                lease.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"lease": "l1"}\n')
                question, _ = listener.accept()
                with question:
                    read_request(question)

        thread = threading.Thread(target=serve)
        thread.start()
        held = HeldLease(path, "bench 1", "orch bench resume")
        with pytest.raises(LeaseEndedError, match="the daemon has ended") as caught:
            held.confirm()

        thread.join(10)
        assert caught.value.hint == "`orch bench resume` goes on"
