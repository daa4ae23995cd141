"""What a bench runs in, for the commands that make one: the daemon, started for it where none runs, and the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from orchestrator.adapters.config.trial_profiles import sweep_trial_profiles
from orchestrator.adapters.paths import Paths
from orchestrator.adapters.store.bench_runs import BenchStore
from orchestrator.bench.daemon_link import DaemonLink
from orchestrator.bench.session import BenchShell
from orchestrator.cli import diagnostics
from orchestrator.cli.launching import ensure_daemon


@contextlib.contextmanager
def bench_shell(paths: Paths, store: BenchStore) -> Iterator[BenchShell]:
    """Be the one bench that runs, without what a killed one has left; a daemon that was started for it ends with it.

    :raises AlreadyRunningError: when another bench runs
    :raises OrchError: when no daemon can be started
    """
    with store.lock():
        sweep_trial_profiles(paths)
        started = ensure_daemon(paths)
        link = DaemonLink(paths.control_socket, diagnostics.progress)
        try:
            yield BenchShell(paths, link, store, diagnostics.progress, diagnostics.note)
        finally:
            if started:
                link.end_daemon()
