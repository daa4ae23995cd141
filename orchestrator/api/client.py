"""The client of the control API, on a plain socket.

It speaks HTTP/1.0, so that an answer ends where the connection ends: no chunks to decode, no HTTP library to import
(`http.client` alone costs as much CPU as the rest of `orch status`).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from orchestrator.core.errors import NotRunningError, OrchError, TimedOutError
from orchestrator.core.exit_codes import error_of

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs `orch status` as much as argparse does
    from orchestrator.api.types import Status

_LOOK = "look at `orch logs --daemon`"


def request(path: str, target: str, body: bytes | None = None, *, timeout_s: float = 30.0) -> bytes:
    """Send a request, and return the body of the answer.

    :param path: the control socket
    :param target: path and query, `/v1/status`
    :param body: JSON; a request with a body is a POST
    :raises NotRunningError: when no daemon answers
    :raises OrchError: what the daemon answered, as the class that its exit code stands for
    """
    with _send(path, target, body, timeout_s) as connection:
        parts = []
        while chunk := _receive(connection, timeout_s):
            parts.append(chunk)

    head, end, rest = b"".join(parts).partition(b"\r\n\r\n")
    _check(head if end else b"", rest)
    if len(rest) < _length(head):
        raise OrchError("the daemon closed the connection in the middle of its answer", hint=_LOOK)

    return rest


def status(path: str, timeout_s: float = 30.0) -> Status:
    """Return what `orch status --json` prints.

    :param path: as in `request`, as what is raised
    """
    import json

    answer: Status = json.loads(request(path, "/v1/status", timeout_s=timeout_s))
    return answer


def stream(path: str, target: str, body: bytes | None = None) -> Iterator[bytes]:
    """Yield the lines of an answer as they come, without their ends, until the daemon closes.

    :param body: as in `request`
    """
    with _send(path, target, body, None) as connection:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = _receive(connection, None)
            if not chunk:
                break

            data += chunk

        head, end, data = data.partition(b"\r\n\r\n")
        if not head.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
            while chunk := _receive(connection, None):
                data += chunk

        _check(head if end else b"", data)
        while True:
            *lines, data = data.split(b"\n")
            yield from lines
            chunk = _receive(connection, None)
            if not chunk:
                return

            data += chunk


def _send(path: str, target: str, body: bytes | None, timeout_s: float | None) -> socket.socket:
    method = "GET" if body is None else "POST"
    head = f"{method} {target} HTTP/1.0\r\nHost: orch\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        connection.connect(path)
        connection.sendall(head.encode() + b"\r\n" + (body or b""))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise NotRunningError("no daemon is running", details=(path,), hint="start one: `orch up PROFILE`") from None
    except (TimeoutError, BlockingIOError):  # the latter: so many wait already that it takes no more
        connection.close()
        raise _silent(timeout_s) from None
    except (BrokenPipeError, ConnectionResetError):
        return connection  # it did not read to the end; its answer, if there is one, says why
    except PermissionError:
        connection.close()
        raise OrchError(
            "the daemon of another user is running here", details=(path,), hint="set ORCH_HOME to a directory of yours"
        ) from None
    except BaseException:
        connection.close()
        raise

    return connection


def _receive(connection: socket.socket, timeout_s: float | None) -> bytes:
    try:
        return connection.recv(65536)
    except TimeoutError:
        raise _silent(timeout_s) from None
    except ConnectionResetError:
        return b""


def _silent(timeout_s: float | None) -> TimedOutError:
    return TimedOutError(f"the daemon did not answer within {timeout_s:g} s", hint=_LOOK)


def _length(head: bytes) -> int:
    """Return the Content-Length; 0 without one."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)

    return 0


def _check(head: bytes, body: bytes) -> None:
    status = head.split(b" ", 2)[1:2]
    if status == [b"200"]:
        return

    if not status:
        raise OrchError("the daemon closed the connection without an answer", hint=_LOOK)

    import json

    try:
        error = json.loads(body)["error"]
        raise error_of(error["code"])(error["message"], details=tuple(error["details"]), hint=error["hint"])
    except (ValueError, KeyError, TypeError):
        text = body[:200].decode(errors="replace")
        raise OrchError(f"the daemon answered {status[0].decode(errors='replace')}: {text}") from None
