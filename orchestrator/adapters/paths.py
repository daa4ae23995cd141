"""The directories and files of orch.

`ORCH_HOME` puts everything below one directory. Otherwise the directories that systemd gives to a service, which are
also those of the service's own user outside of it (`sudo -u orch orch status`), otherwise XDG's. Uses `os.path` and a
plain class on purpose: `orch status` pays for this import.
"""

from __future__ import annotations

import errno
import os

from orchestrator.core.errors import OrchError

SERVICE_STATE = "/var/lib/orch"
"""Its owner is the user of the system service: one look at it instead of a question to the user database."""

SERVICE_DIRECTORIES = {
    "CONFIGURATION_DIRECTORY": "/etc/orch",
    "STATE_DIRECTORY": SERVICE_STATE,
    "CACHE_DIRECTORY": "/var/cache/orch",
    "LOGS_DIRECTORY": "/var/log/orch",
    "RUNTIME_DIRECTORY": "/run/orch",
}
"""The directories that systemd gives to the system service (`systemd/system/orch.service`)."""

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The directory of the package `orchestrator`."""

MAX_SOCKET_PATH = 107
"""Bytes that fit in `sockaddr_un.sun_path` beside its final NUL (unix(7))."""


def packaged_directory(name: str) -> str:
    """Return the directory of this name: beside the packages in a checkout, inside the package in a wheel."""
    in_wheel = os.path.join(PACKAGE, "_share", name)
    return in_wheel if os.path.isdir(in_wheel) else os.path.join(os.path.dirname(PACKAGE), name)


class Paths:
    """Absolute directories; none of them need exist yet."""

    __slots__ = ("cache", "config", "data", "logs", "runtime", "state")

    def __init__(self, config: str, state: str, data: str, cache: str, runtime: str, logs: str | None = None) -> None:
        self.config = config
        self.state = state
        self.data = data
        self.cache = cache
        self.runtime = runtime
        self.logs = logs or os.path.join(state, "logs")

    @property
    def directories(self) -> tuple[str, ...]:
        return (self.config, self.state, self.data, self.cache, self.runtime)

    @property
    def config_file(self) -> str:
        return os.path.join(self.config, "orch.toml")

    @property
    def profiles(self) -> str:
        return os.path.join(self.config, "profiles")

    @property
    def engines_file(self) -> str:
        return os.path.join(self.data, "engines.toml")

    @property
    def models(self) -> str:
        """The directory of the models that were fetched from repositories, `ORG/REPO/FILE` in it."""
        return os.path.join(self.data, "models")

    @property
    def control_socket(self) -> str:
        return os.path.join(self.runtime, "control.sock")

    @property
    def keys(self) -> str:
        """The directory of the keys that engines read."""
        return os.path.join(self.runtime, "keys")

    @property
    def lock_file(self) -> str:
        return os.path.join(self.state, "daemon.lock")

    @property
    def state_file(self) -> str:
        return os.path.join(self.state, "state.json")

    @property
    def margins_file(self) -> str:
        return os.path.join(self.state, "margins.json")

    @property
    def speeds_file(self) -> str:
        """Speeds that were measured on this machine."""
        return os.path.join(self.state, "speeds.json")

    @property
    def speed_marks_file(self) -> str:
        """How fast profiles were, and what speed was accepted."""
        return os.path.join(self.state, "speed_marks.json")

    @property
    def verifications_file(self) -> str:
        return os.path.join(self.state, "verifications.json")

    @property
    def gates_file(self) -> str:
        """What became of new builds of engines."""
        return os.path.join(self.state, "gates.json")

    @property
    def starts_file(self) -> str:
        return os.path.join(self.state, "starts.json")

    @property
    def history_file(self) -> str:
        return os.path.join(self.state, "history.sqlite3")

    @property
    def bench_file(self) -> str:
        return os.path.join(self.state, "bench.sqlite3")


def find_paths(env: dict[str, str] | None = None) -> Paths:
    """Return the directories for this environment.

    :param env: the environment to read, by default this process's
    :raises OrchError: when the runtime directory is too long for a unix socket, or a home directory is needed and
        there is none
    """
    env = dict(os.environ) if env is None else env
    home = env.get("ORCH_HOME")
    if home:
        root = os.path.abspath(_expand(env, home))
        paths = Paths(*(os.path.join(root, name) for name in ("config", "state", "data", "cache", "run")))
    else:
        if "STATE_DIRECTORY" not in env and is_service_user():
            env = {**env, **SERVICE_DIRECTORIES}

        paths = Paths(
            config=_first(env, "CONFIGURATION_DIRECTORY") or _xdg(env, "XDG_CONFIG_HOME", ".config"),
            state=_first(env, "STATE_DIRECTORY") or _xdg(env, "XDG_STATE_HOME", ".local/state"),
            data=_data(env),
            cache=_first(env, "CACHE_DIRECTORY") or _xdg(env, "XDG_CACHE_HOME", ".cache"),
            runtime=_first(env, "RUNTIME_DIRECTORY") or _runtime(env),
            logs=_first(env, "LOGS_DIRECTORY"),
        )

    length = len(os.fsencode(paths.control_socket))
    if length > MAX_SOCKET_PATH:
        raise OrchError(
            "the path of the control socket is too long for a unix socket",
            details=(f"{paths.control_socket}: {length} bytes, allowed {MAX_SOCKET_PATH}",),
            hint="set ORCH_HOME (or XDG_RUNTIME_DIR) to a shorter directory",
        )

    return paths


def is_service_user() -> bool:
    """Return whether this process is the system service's user."""
    me = os.geteuid()
    try:
        return me != 0 and os.stat(SERVICE_STATE).st_uid == me
    except OSError:
        return False


def make_private(directory: str) -> None:
    """Create a directory that only its owner may enter; tighten one that exists and is ours.

    :raises PermissionError: when another user owns it, or a link in its place: who could then put anything there
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    link, found, me = os.lstat(directory), os.stat(directory), os.geteuid()
    if not {link.st_uid, found.st_uid} <= {me, 0}:  # root's: systemd's ConfigurationDirectory
        raise PermissionError(errno.EPERM, "it belongs to another user", directory)

    if found.st_uid == me and found.st_mode & 0o077:
        os.chmod(directory, 0o700)


def make_directories(paths: Paths) -> None:
    """Make every directory of orch, for its owner alone.

    :raises OrchError: when one of them cannot be made, or is another user's
    """
    for directory in paths.directories:
        try:
            make_private(directory)
        except OSError as error:
            raise OrchError(
                "a directory of orch cannot be used",
                details=(f"{directory}: {error.strerror}",),
                hint=_hint_for_directories(),
            ) from error


def _hint_for_directories() -> str:
    if is_service_user():  # /run/orch is there while the service runs
        return "start the service, which makes them: `sudo systemctl start orch`"

    return "set ORCH_HOME to a directory of yours"


def _first(env: dict[str, str], name: str) -> str | None:
    # systemd joins several directories with colons (systemd.exec(5)).
    value = env.get(name, "").split(":")[0]
    return value or None


def _data(env: dict[str, str]) -> str:
    # systemd has no data directory of its own; what is built or installed belongs to the state of a service.
    state = _first(env, "STATE_DIRECTORY")
    return os.path.join(state, "data") if state else _xdg(env, "XDG_DATA_HOME", ".local/share")


def _xdg(env: dict[str, str], name: str, fallback: str) -> str:
    base = env.get(name)
    if not base or not os.path.isabs(base):  # the specification says that a relative path is to be ignored
        base = os.path.join(_expand(env, "~"), fallback)

    return os.path.join(base, "orch")


def _expand(env: dict[str, str], path: str) -> str:
    """Return a path with `~` expanded by this environment's HOME, by the user database without it."""
    home = env.get("HOME")
    if home and os.path.isabs(home) and (path == "~" or path.startswith("~/")):
        return os.path.join(home, path[2:]) if path[2:] else home

    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise OrchError(
            f"`{path}` names no directory: the user has no home",
            hint="set ORCH_HOME to an absolute directory",
        )

    return expanded


def _runtime(env: dict[str, str]) -> str:
    base = env.get("XDG_RUNTIME_DIR")
    if base and os.path.isabs(base):
        return os.path.join(base, "orch")

    # No session manager (containers, cron): the state directory is ours alone, unlike /tmp.
    return os.path.join(_xdg(env, "XDG_STATE_HOME", ".local/state"), "run")
