"""The configuration of the daemon and its gateway, `orch.toml`: one table of keys, and what must not be combined."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from orchestrator.core.addresses import is_loopback, listen_host
from orchestrator.core.energy.prices import COST_SETTINGS, ApiPrice, CostConfig, read_prices
from orchestrator.core.fleet.restart import RestartPolicy
from orchestrator.core.problems import Key, Problems, did_you_mean, dotted
from orchestrator.core.profile.absent import explain_absent
from orchestrator.core.profile.profile import NAME_RULE, is_name
from orchestrator.core.profile.settings import Setting, Value
from orchestrator.core.profile.values import describe_type, read_value
from orchestrator.core.residency.table import RESIDENCY_SETTINGS, ResidencyConfig, check_residency
from orchestrator.core.terminal import quote_text

Origin = Literal["default", "file", "environment", "credential"]
ReadyWhen = Literal["listening", "model"]
Page = Literal["on", "read-only", "off"]

ANY_ORIGIN = "*"
"""In `gateway.allowed_origins`: pages from anywhere."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The gateway: the address that clients use, and the limits that keep one of them from harming the rest."""

    host: str = "127.0.0.1"
    port: int = 8080
    api_key_file: str = ""
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    max_queued: int = 256
    hold_timeout_s: float = 600.0
    header_timeout_s: float = 15.0
    max_body_mib: int = 64
    max_bodies_mib: int = 256
    replay_max_mib: int = 16
    quarantine_s: float = 600.0
    switch_on_request: bool = True
    default_model: str = ""
    switch_min_stay_s: float = 5.0
    switch_patience_s: float = 30.0
    max_in_flight_per_key: int = 0
    max_per_minute_per_key: int = 0
    page: Page = "on"


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """The daemon: what it starts, how long it waits for engines, and what it lets them use."""

    default_profile: str = ""
    log_max_mib: int = 16
    stop_grace_s: float = 15.0
    drain_s: float = 120.0
    load_stall_s: float = 120.0
    probe_s: float = 10.0
    stall_s: float = 120.0
    healthy_s: float = 30.0
    first_reading_s: float = 5.0
    ready_when: ReadyWhen = "listening"
    allow_root: bool = False
    engine_memory_max_mib: int = 0


@dataclass(frozen=True, slots=True)
class EnginesConfig:
    """New builds of engines.

    :param tolerate_slower: than the current build, percent; a build that is slower by more is not made current
    :param auto: `orch engines watch` makes a build current that has passed its gate
    """

    tolerate_slower: float = 3.0
    auto: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; paths are absolute, or empty."""

    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    daemon: DaemonConfig = field(default_factory=DaemonConfig)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    residency: ResidencyConfig = field(default_factory=ResidencyConfig)
    engines: EnginesConfig = field(default_factory=EnginesConfig)
    cost: CostConfig = field(default_factory=CostConfig)


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration with where each value comes from, by dotted key."""

    config: Config
    values: Mapping[str, Value]
    origins: Mapping[str, Origin]


_HOST = (r"[^-\s,/][^\s,/]*", "an address or a host name")
_ORIGIN_WORDS = (
    "an origin as browsers write it, in lower case and without a path, such as `https://chat.example`, "
    "`http://localhost:3000`, `app://obsidian.md` or `null`; or `*`"
)
_ORIGIN = (r"\*|null|[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", _ORIGIN_WORDS)

CONFIG_SETTINGS: tuple[Setting, ...] = (
    Setting("gateway.host", ("string",), "address to listen on; other than loopback only with a key", form=_HOST),
    Setting("gateway.port", ("int",), "port to listen on; 0 takes a free one", minimum=0, maximum=65535),
    Setting("gateway.api_key_file", ("path",), "file with the keys that clients must send, one a line; empty for none"),
    Setting("gateway.allowed_hosts", ("strings",), "more names that a client's Host header may hold", form=_HOST),
    Setting("gateway.allowed_origins", ("strings",), "origins whose pages may use the gateway (CORS)", form=_ORIGIN),
    Setting("gateway.max_queued", ("int",), "requests held while no engine is ready", minimum=0, maximum=65536),
    Setting("gateway.hold_timeout_s", ("float",), "how long a request is held, s", minimum=1, maximum=86400),
    Setting("gateway.header_timeout_s", ("float",), "time for a client to send the head, s", minimum=1, maximum=300),
    Setting("gateway.max_body_mib", ("int",), "the largest request body, MiB", minimum=1, maximum=4096),
    Setting("gateway.max_bodies_mib", ("int",), "all request bodies together, MiB", minimum=1, maximum=65536),
    Setting("gateway.replay_max_mib", ("int",), "the largest body kept to be sent again, MiB", minimum=0, maximum=4096),
    Setting("gateway.quarantine_s", ("float",), "how long a crash suspect is refused, s", minimum=0, maximum=86400),
    Setting("gateway.switch_on_request", ("bool",), "a client that names another profile is served by it"),
    Setting("gateway.default_model", ("string",), "profile that answers to unknown model names; empty for none"),
    Setting("gateway.switch_min_stay_s", ("float",), "least time that a profile serves, s", minimum=0, maximum=86400),
    Setting("gateway.switch_patience_s", ("float",), "longest wait for a busy profile, s", minimum=0, maximum=86400),
    Setting("gateway.max_in_flight_per_key", ("int",), "requests of a key at a time; 0: any", minimum=0, maximum=4096),
    Setting("gateway.max_per_minute_per_key", ("int",), "requests of a key a minute; 0: any", minimum=0, maximum=10**6),
    Setting(
        "gateway.page", ("string",), "the page at `/`; `read-only`: figures also without the key",
        choices=("on", "read-only", "off"),
    ),
    Setting("daemon.default_profile", ("string",), "profile that is started when none is named; empty for none"),
    Setting("daemon.log_max_mib", ("int",), "size at which an engine's log is rotated, MiB", minimum=1, maximum=4096),
    Setting("daemon.stop_grace_s", ("float",), "time from SIGTERM to SIGKILL for an engine, s", minimum=0, maximum=600),
    Setting("daemon.drain_s", ("float",), "time for requests before an engine stops, s", minimum=0, maximum=86400),
    Setting("daemon.load_stall_s", ("float",), "a load without progress ends after this, s", minimum=1, maximum=86400),
    Setting("daemon.probe_s", ("float",), "time between two checks of a ready engine, s", minimum=0.1, maximum=3600),
    Setting("daemon.stall_s", ("float",), "requests without progress end it after this, s", minimum=1, maximum=86400),
    Setting("daemon.healthy_s", ("float",), "ready so long, its margin is learned, s", minimum=0.1, maximum=86400),
    Setting("daemon.first_reading_s", ("float",), "the longest first verification, s; 0: none", minimum=0, maximum=600),
    Setting("daemon.engine_memory_max_mib", ("int",), "host memory limit, MiB; 0: none", minimum=0, maximum=1 << 30),
    Setting("daemon.ready_when", ("string",), "when the service counts as started", choices=("listening", "model")),
    Setting("daemon.allow_root", ("bool",), "a system service may run as root"),
    Setting("restart.first_delay_s", ("float",), "wait after the first crash, doubling, s", minimum=0, maximum=3600),
    Setting("restart.max_delay_s", ("float",), "the longest such wait, s", minimum=0, maximum=86400),
    Setting("restart.stable_s", ("float",), "ready so long, crashes are forgotten, s", minimum=0.1, maximum=86400),
    Setting("restart.intensity", ("int",), "starts within `window_s` until a rest is due", minimum=1, maximum=1000),
    Setting("restart.window_s", ("float",), "time in which starts are counted, s", minimum=1, maximum=86400),
    Setting("restart.cooldown_s", ("float",), "rest before one more try, doubling, s", minimum=0, maximum=86400),
    *RESIDENCY_SETTINGS,
    Setting("engines.tolerate_slower", ("float",), "so much slower may a new build be, percent", minimum=0, maximum=50),
    Setting("engines.auto", ("bool",), "`orch engines watch` makes a build current that has passed its gate"),
    *COST_SETTINGS,
)  # fmt: skip

_BY_PATH = {setting.path: setting for setting in CONFIG_SETTINGS}
_TABLES = tuple(dict.fromkeys(setting.table for setting in CONFIG_SETTINGS))

ENVIRONMENT: Mapping[str, str] = {
    "ORCH_GATEWAY_HOST": "gateway.host",
    "ORCH_GATEWAY_PORT": "gateway.port",
    "ORCH_DEFAULT_PROFILE": "daemon.default_profile",
    "ORCH_FIRST_READING_S": "daemon.first_reading_s",
    "ORCH_PRELOAD": "residency.preload",
}
"""Variables that override the file."""


def read_config(
    document: Mapping[str, object],
    environment: Mapping[str, str],
    file_problems: Problems,
    environment_problems: Problems,
    resolve: Callable[[str], str],
    keys_credential: str = "",
) -> LoadedConfig:
    """Read the parsed file and lay the environment over it; problems are collected, and the defaults stand in.

    :param resolve: turns a path as written in the file into an absolute one
    :param keys_credential: the key file that the service manager handed over, for when the file names none
    """
    values: dict[str, Value] = {path: _default(path) for path in _BY_PATH}
    origins: dict[str, Origin] = dict.fromkeys(_BY_PATH, "default")
    for path, value in _read_tables(document, file_problems).items():
        values[path], origins[path] = value, "file"

    for name, path in ENVIRONMENT.items():
        if environment.get(name):
            setting, text = _BY_PATH[path], environment[name]
            raw: object = text
            if "int" in setting.types and re.fullmatch(r"[0-9]{1,9}", text):
                raw = int(text)
            elif "float" in setting.types and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
                raw = float(text)
            elif "strings" in setting.types:
                raw = [part.strip() for part in text.split(",")]

            read = read_value(setting, raw, (name,), environment_problems)
            if read is not None:
                values[path], origins[path] = read, "environment"

    for table, key in (("daemon", "default_profile"), ("gateway", "default_model")):
        name = str(values[f"{table}.{key}"])
        if name and not is_name(name):
            message = f"`{table}.{key}`: expected {NAME_RULE}, found `{quote_text(name, 64)}`"
            file_problems.add((table, key), message)

    if keys_credential and not values["gateway.api_key_file"]:
        values["gateway.api_key_file"], origins["gateway.api_key_file"] = keys_credential, "credential"

    check_residency(values, file_problems)
    prices = read_prices(values, file_problems)
    _check_open_host(values, origins, file_problems, environment_problems)
    _check_origins(values, file_problems)
    if origins["gateway.api_key_file"] == "file" and values["gateway.api_key_file"]:
        values["gateway.api_key_file"] = resolve(str(values["gateway.api_key_file"]))

    return LoadedConfig(_build(values, prices), values, origins)


def _read_tables(document: Mapping[str, object], problems: Problems) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for table, content in document.items():
        if table not in _TABLES:
            problems.add((table,), f"unknown table `{table}`", hint=did_you_mean(table, _TABLES))
        elif not isinstance(content, dict):
            problems.add((table,), f"`{table}`: expected a table, found {describe_type(content)}")
        else:
            for key, raw in content.items():
                place: Key = (table, key)
                setting = _BY_PATH.get(f"{table}.{key}")
                if setting is None:
                    allowed = [each.key for each in CONFIG_SETTINGS if each.table == table]
                    problems.add(
                        place, f"unknown key `{dotted(place)}`", hint=explain_absent(key) or did_you_mean(key, allowed)
                    )
                    continue

                if setting.types == ("table",) and isinstance(raw, dict):  # `read_prices` has the settings within
                    values[setting.path] = raw
                    continue

                value = read_value(setting, raw, place, problems, allow_empty=True)
                if value is not None:
                    values[setting.path] = value

    return values


def _check_open_host(
    values: Mapping[str, Value], origins: Mapping[str, Origin], in_file: Problems, in_environment: Problems
) -> None:
    host = str(values["gateway.host"])
    if is_loopback(host) or values["gateway.api_key_file"]:
        return

    message = f"`gateway.host`: `{host}` can be reached from other machines, and there is no `gateway.api_key_file`"
    hint = "name a file with keys, or listen on 127.0.0.1"
    if origins["gateway.host"] == "environment":
        in_environment.add(("ORCH_GATEWAY_HOST",), message, hint=hint)
    else:
        in_file.add(("gateway", "host"), message, hint=hint)


def _check_origins(values: Mapping[str, Value], problems: Problems) -> None:
    allowed = cast(tuple[str, ...], values["gateway.allowed_origins"])
    place = ("gateway", "allowed_origins")
    if ANY_ORIGIN in allowed and not values["gateway.api_key_file"]:
        message = (
            "`gateway.allowed_origins`: `*` lets every page use the gateway, and there is no `gateway.api_key_file`"
        )
        problems.add(place, message, hint="name the origins, or a file with keys")

    for origin in allowed:
        port = origin.rpartition(":")[2]
        if port == _DEFAULT_PORTS.get(origin.partition(":")[0]):
            plain = origin.removesuffix(f":{port}")
            problems.add(place, f"`gateway.allowed_origins`: browsers write `{origin}` as `{plain}`")


_DEFAULT_PORTS = {"http": "80", "https": "443"}


def _default(path: str) -> Value:
    table, _, key = path.partition(".")
    return cast(Value, getattr(getattr(_DEFAULTS, table), key))


_DEFAULTS = Config()


def _build(values: Mapping[str, Value], prices: Mapping[str, ApiPrice]) -> Config:
    host = listen_host(str(values["gateway.host"]))
    return Config(
        gateway=GatewayConfig(**{**_table(values, "gateway"), "host": host}),
        daemon=DaemonConfig(**_table(values, "daemon")),
        restart=RestartPolicy(**_table(values, "restart"), healthy_s=cast(float, values["daemon.healthy_s"])),
        residency=ResidencyConfig(**_table(values, "residency")),
        engines=EnginesConfig(**_table(values, "engines")),
        cost=CostConfig(**{**_table(values, "cost"), "prices": prices}),
    )


def _table(values: Mapping[str, Value], name: str) -> dict[str, Any]:
    return {setting.key: values[setting.path] for setting in CONFIG_SETTINGS if setting.table == name}
