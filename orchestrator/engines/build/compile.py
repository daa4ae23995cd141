"""Runs cmake and ninja: progress as it goes, the whole output in a log, and nothing left behind when interrupted.

ninja's own record in the build tree is what an interrupted build goes on from.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from orchestrator.core.errors import OrchError
from orchestrator.core.setup.build_plan import JOB_MIB, wanted_targets
from orchestrator.engines.build.output import Progress, exhausted_resource, first_error, progress, step_of

FREE_MIB = 1024
"""Below this the disk would be full before the build is done."""

_PASSED = (
    "PATH", "HOME", "USER", "TMPDIR", "LD_LIBRARY_PATH", "CC", "CXX", "CUDA_HOME", "CUDA_PATH", "CUDAToolkit_ROOT",
    "CUDAHOSTCXX", "ROCM_PATH", "HIP_PATH", "HIPCXX", "VULKAN_SDK", "SDKROOT", "DEVELOPER_DIR", "CMAKE_PREFIX_PATH",
)  # fmt: skip
_PASSED_PREFIXES = ("CCACHE_", "SCCACHE_")

_END_S = 10.0
"""For compilers to end after ninja was told to; then they are killed."""

OnStep = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Built:
    """:param targets: what was built; each is a program in `tree/bin`"""

    targets: tuple[str, ...]
    seconds: float


def build(
    source: str,
    tree: str,
    log: str,
    definitions: Mapping[str, str],
    cmake: str,
    ninja: str,
    jobs: int,
    on_step: OnStep,
    *,
    idle: bool = False,
) -> Built:
    """Configure and build; goes on with a tree that is half done.

    :param idle: with what processors and disks have left
    :param log: keeps everything that was printed, this run's after that of earlier ones
    :raises OrchError: with the first error, and where the log is
    """
    _check_space(os.path.dirname(tree))
    began = time.monotonic()
    with open(log, "ab") as file:
        runner = _Runner(file, log, jobs, on_step, idle_words() if idle else ())
        library = f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={tree}/bin"
        words = [f"-D{name}={value}" for name, value in definitions.items()]
        generator = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        runner.run("cmake", [cmake, *generator, "-S", source, "-B", tree, library, *words])
        targets = wanted_targets(_targets(ninja, tree))
        runner.run("the build", [ninja, "-C", tree, "-j", str(jobs), *targets])

    return Built(targets, time.monotonic() - began)


def idle_words() -> tuple[str, ...]:
    """Return the words before a command that give it the lowest priority; of the tools that are there."""
    chosen = (("nice", "-n", "19"), ("ionice", "-c", "3"), ("chrt", "--idle", "0"))
    return tuple(word for words in chosen if shutil.which(words[0]) for word in words)


class _Runner:
    def __init__(self, file: IO[bytes], log: str, jobs: int, on_step: OnStep, before: Sequence[str]) -> None:
        self._before = before
        self._file = file
        self._log = log
        self._jobs = jobs
        self._on_step = on_step

    def run(self, what: str, words: Sequence[str]) -> None:
        start = self._file.tell()
        self._file.write(f"$ {' '.join(words)}\n".encode("utf-8", "surrogateescape"))
        # A session of its own: a key pressed on the terminal reaches orch alone, which then ends the whole group.
        process = subprocess.Popen(
            [*self._before, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            with process.stdout as output:
                self._follow(output)

            code = process.wait()
        except BaseException:
            _end(process)
            raise

        if code != 0:
            raise self._failure(what, code, start)

    def _follow(self, output: IO[bytes]) -> None:
        began = time.monotonic()
        for line in output:
            self._file.write(line)
            self._file.flush()
            step = step_of(line.decode("utf-8", "replace"))
            if step is not None:
                self._on_step(progress(*step, time.monotonic() - began))

    def _failure(self, what: str, code: int, start: int) -> OrchError:
        self._file.flush()
        with open(self._log, "rb") as reader:
            reader.seek(start)
            text = reader.read().decode("utf-8", "replace")

        lines = text.splitlines()
        ran_out = exhausted_resource(text)
        if ran_out == "memory" or code == -signal.SIGKILL:
            hint = f"run it again with `--jobs {max(1, self._jobs // 2)}`: it goes on where it stopped"
        elif ran_out == "disk":
            hint = "make room, and run it again: it goes on where it stopped"
        else:
            hint = f"read {self._log}"

        details = first_error(lines) or tuple(lines[-4:])
        message = f"{what} ran out of {ran_out}" if ran_out else f"{what} failed with exit code {code}"
        return OrchError(message, details=(*details, f"log: {self._log}"), hint=hint)


def _targets(ninja: str, tree: str) -> tuple[str, ...]:
    done = subprocess.run([ninja, "-C", tree, "-t", "targets", "all"], capture_output=True, text=True, check=True)
    return tuple(line.split(":")[0] for line in done.stdout.splitlines())


def _environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    # The source's number and commit are written into it: what git would say here is about some other repository.
    return {**env, "LC_ALL": "C", "NINJA_STATUS": "[%f/%t] ", "GIT_DIR": "/nonexistent"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """ninja takes SIGINT for: end the compilers, and remove what they had half written."""
    for sig in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sig)

        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
            return


def _check_space(directory: str) -> None:
    free_mib = shutil.disk_usage(directory).free >> 20
    if free_mib < FREE_MIB:
        raise OrchError(
            "there is too little room for a build",
            details=(f"{directory}: {free_mib} MiB are free, {FREE_MIB} are needed at least",),
            hint=f"make room, or set ORCH_HOME to another disk ({JOB_MIB} MiB of memory for each job are needed too)",
        )
