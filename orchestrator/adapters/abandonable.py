"""Blocking work that may never return, such as reading from a disk that hangs: nobody has to wait for its end.

Nothing of it goes through anyio's pool: forty files on a disk that hangs would fill that, and the end of the process
would wait for its threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NoThreadError(RuntimeError):
    """Raised when no thread can be started."""


async def run_abandonable(work: Callable[[], T]) -> T:
    """Run blocking work in a thread of its own, and return what it returns.

    Cancelling leaves the thread behind. It is a daemon thread: the process may end while it still blocks.

    :raises NoThreadError: when no thread can be started
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():  # abandoned
            return

        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001  (it is raised where the work is waited for)
            error = raised

        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends, and nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    try:
        threading.Thread(target=run, name="abandonable", daemon=True).start()
    except RuntimeError as error:
        raise NoThreadError("no thread can be started: the limit on processes or on memory is reached") from error

    return await done
