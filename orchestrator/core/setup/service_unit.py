"""Unit files from the templates in `systemd/`, with a mark by which they are known again. Pure: facts in, text out.

A unit begins with a line that holds the sha256 of the rest. A person's edit breaks the sum, so that an installation can
tell its own older text, which it may replace, from somebody's work, which it may not.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from orchestrator.core import exit_codes
from orchestrator.core.addresses import bare_host, is_loopback
from orchestrator.core.config import Config

Flavour = Literal["user", "system"]

SERVICE = "orch.service"
SOCKET = "orch.socket"
WATCH = "orch-watch.service"
TIMER = "orch-watch.timer"

UNKILLABLE_ALLOWANCE_S = 10
"""Time for engines that even SIGKILL does not end, beyond their grace, s (`daemon/process/daemon.py`)."""

STOP_SLACK_S = 15
"""Time beyond that, s. The daemon has to be the last to end: systemd kills what is left as soon as this is over."""

CREDENTIAL = "orch-api-keys"
"""The name of the gateway's keys in $CREDENTIALS_DIRECTORY (`adapters/config/config_file.py`)."""

_STAMP = re.compile(r"# Written by `orch service install`, sha256 ([0-9a-f]{64})\.[^\n]*\n")
_CONDITION = re.compile(r"\{(!?)(>=|<)?([a-z0-9]+)\} ")
_VALUE = re.compile(r"@([a-z_]+)@")


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """The facts that a unit depends on.

    :param orch: the words that run this installation
    :param systemd: version of the systemd that will read the unit
    :param profile: what is started when nothing ran before; empty for the configuration's default
    :param preload: more profiles, which are loaded at each start
    :param environment: variables that the commands of the same user see as well
    :param key_file: with the gateway's keys, to be handed over as a credential; empty for none
    :param reads_homes: the installation or the model lies in a home directory
    """

    flavour: Flavour
    orch: tuple[str, ...]
    systemd: int
    config: Config
    profile: str = ""
    preload: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    socket: bool = False
    key_file: str = ""
    reads_homes: bool = False


def render(template: str, facts: UnitFacts) -> str:
    """Return the unit's text, its sum first.

    :param template: one of the files in `systemd/`; its README has the rules
    :raises KeyError: when the template names a value or a fact that there is none of
    """
    values = _values(facts)
    flags = {
        "loopback": is_loopback(facts.config.gateway.host),
        "socket": facts.socket,
        "keys": bool(facts.key_file),
    }
    lines: list[str] = []
    for line in template.splitlines():
        condition = _CONDITION.match(line)
        if condition is not None:
            if not _holds(condition, facts.systemd, flags):
                continue

            line = line[condition.end() :]

        filled = _VALUE.sub(lambda match: values[match[1]], line)
        if filled or not line:  # a value of no lines, no line
            lines.append(filled)

    return add_stamp("\n".join(lines) + "\n")


def stop_timeout_s(config: Config) -> int:
    """Return how long an orderly stop may take, s, for TimeoutStopSec."""
    return math.ceil(config.daemon.drain_s + config.daemon.stop_grace_s) + UNKILLABLE_ALLOWANCE_S + STOP_SLACK_S


def listen_address(config: Config) -> str:
    """Return the gateway's address for ListenStream."""
    host = "127.0.0.1" if bare_host(config.gateway.host) == "localhost" else config.gateway.host
    return f"[{host}]:{config.gateway.port}" if ":" in host else f"{host}:{config.gateway.port}"


def add_stamp(text: str) -> str:
    """Return a unit with the line before it by which `is_ours` knows it."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"# Written by `orch service install`, sha256 {digest}. Your changes: `systemctl edit`.\n{text}"


def is_ours(text: str) -> bool:
    """Return whether a unit is as some `orch service install` wrote it."""
    match = _STAMP.match(text)
    return match is not None and hashlib.sha256(text[match.end() :].encode()).hexdigest() == match[1]


def is_program(path: str) -> bool:
    """Return whether systemd takes a path for a program (`string_is_safe` of its src/basic/string-util.c)."""
    return not re.search(r"[\x00-\x1f\x7f\"'\\]", path)


def program_of(unit: str) -> str | None:
    """Return the program that a unit of ours runs; None when it names none."""
    match = re.search(r'^ExecStart=(?:"([^"]+)"|(\S+))', unit, re.MULTILINE)
    return (match[1] or match[2]).replace("%%", "%") if match else None


def command_word(text: str) -> str:
    """Return a word for a command line of systemd (systemd.service(5)): specifiers and variables mean themselves."""
    return quote_word(text).replace("$", "$$")


def quote_word(text: str) -> str:
    """Return a word quoted for systemd (systemd.syntax(7)), with `%` kept from being a specifier."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", text):
        return text

    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _values(facts: UnitFacts) -> dict[str, str]:
    # Of the first word systemd takes `$` as it is: the program cannot be a variable.
    orch = " ".join((quote_word(facts.orch[0]), *map(command_word, facts.orch[1:])))
    environment = dict(facts.environment or {})
    if facts.profile:
        environment["ORCH_DEFAULT_PROFILE"] = facts.profile

    if facts.preload:
        environment["ORCH_PRELOAD"] = ",".join(facts.preload)

    return {
        "exec_start": f"{orch} serve",
        "exec_reload": f"{orch} reload",
        "exec_watch": f"{orch} engines watch",
        "environment": "\n".join(f"Environment={quote_word(f'{name}={value}')}" for name, value in environment.items()),
        "stop_s": str(stop_timeout_s(facts.config)),
        "final_exits": " ".join(map(str, exit_codes.FINAL)),
        "protect_home": "read-only" if facts.reads_homes else "yes",
        "credential": quote_word(f"{CREDENTIAL}:{facts.key_file}"),
        "listen": listen_address(facts.config),
    }


def _holds(condition: re.Match[str], systemd: int, flags: Mapping[str, bool]) -> bool:
    negated, comparison, name = condition.groups()
    match comparison:
        case ">=":
            return systemd >= int(name)
        case "<":
            return systemd < int(name)
        case _:
            return flags[name] != bool(negated)
