"""The checks of `orch doctor` on what orch has on disk and on its address: files, profiles, models, engines, port."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from urllib.parse import quote

from orchestrator.adapters.config.config_file import load_config
from orchestrator.adapters.config.profile_files import ProfileStore, shipped_directory
from orchestrator.adapters.process.ports import can_listen, listener_pids
from orchestrator.adapters.store.history import VERSION as HISTORY_VERSION
from orchestrator.adapters.store.lock import read_holder
from orchestrator.adapters.store.starts import StartStore
from orchestrator.adapters.store.state_file import VERSION
from orchestrator.adapters.store.verifications import VerificationStore, build_key
from orchestrator.adapters.systemd.notify import own_unit
from orchestrator.core.errors import OrchError
from orchestrator.core.problems import ProblemsError
from orchestrator.core.profile.profile import Profile
from orchestrator.core.setup.doctor import CheckResult, judge_room
from orchestrator.core.setup.service_unit import SERVICE
from orchestrator.doctor.examine import DoctorContext
from orchestrator.engines.locate import EngineMissingError
from orchestrator.engines.model_file import model_file
from orchestrator.engines.registry import Engine, EngineRegistry, engine_key


def check_directories(context: DoctorContext) -> Iterator[CheckResult]:
    wrong = False
    for path in context.paths.directories:
        finding = _directory(path)
        if finding is not None:
            wrong = True
            yield finding

    if not wrong:
        yield CheckResult("ok", "directories", "config, state, data, cache and runtime are usable by their owner alone")


def _directory(path: str) -> CheckResult | None:
    place = path
    while not os.path.lexists(place):
        place = os.path.dirname(place)

    status = os.stat(place)
    if not stat.S_ISDIR(status.st_mode):
        return CheckResult("problem", "directories", f"{place} is not a directory", "move it away")

    if place == path and status.st_uid not in (os.geteuid(), 0):
        fix = f"`sudo chown -R {os.geteuid()} {path}`, or set ORCH_HOME to a directory of yours"
        return CheckResult("problem", "directories", f"{path} belongs to uid {status.st_uid}", fix)

    if not os.access(place, os.W_OK | os.X_OK) and status.st_uid == os.geteuid():
        return CheckResult("problem", "directories", f"{place} cannot be written", f"`chmod u+rwx {place}`")

    if place == path and status.st_uid == os.geteuid() and status.st_mode & 0o077:
        return CheckResult("warning", "directories", f"{path} is open to other users", f"`chmod 700 {path}`")

    return None


def check_state(context: DoctorContext) -> Iterator[CheckResult]:
    paths = context.paths
    known = 0
    readers = {paths.state_file: (_json_version, VERSION), paths.margins_file: (_json_version, VERSION)}
    readers[paths.history_file] = (_database_version, HISTORY_VERSION)
    for path, (read, newest) in readers.items():
        try:
            version = read(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield CheckResult("problem", "state", f"{path}: {error.strerror}", f"`ls -l {path}`: it has to be yours")
        except (ValueError, KeyError, TypeError, RecursionError, sqlite3.Error):
            text = f"{path} cannot be read; the next start keeps it aside and begins without it"
            yield CheckResult("warning", "state", text)
        else:
            if not isinstance(version, int) or version > newest:
                text = f"{path} is of version {version}, this orch reads up to {newest}"
                yield CheckResult("problem", "state", text, "upgrade orch, or move the file away")
            else:
                known += 1

    yield CheckResult("ok", "state", f"{known} state files of a known version" if known else "nothing remembered yet")


def _json_version(path: str) -> object:
    with open(path, "rb") as file:
        return json.load(file)["version"]


def _database_version(path: str) -> object:
    with open(path, "rb"):  # SQLite says less about what is wrong than open(2)
        pass

    with contextlib.closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=0.5)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def check_config(context: DoctorContext) -> Iterator[CheckResult]:
    try:
        load_config(context.paths, context.environment)
    except ProblemsError as error:
        for problem in error.problems:
            yield CheckResult("problem", "config", str(problem), error.hint)

        return

    file = context.paths.config_file
    yield CheckResult(
        "ok", "config", f"{file} is valid" if os.path.exists(file) else f"the defaults: there is no {file}"
    )


def check_gateway(context: DoctorContext) -> Iterator[CheckResult]:
    try:
        listening = load_config(context.paths, context.environment).gateway
    except ProblemsError:
        return  # said by `check_config`

    yield _port(context, listening.host, listening.port)


def _port(context: DoctorContext, host: str, port: int) -> CheckResult:
    address = f"{host}:{port}"
    if port == 0:
        return CheckResult("note", "gateway", "port 0: a free one at each start")

    if can_listen(host, port):
        return CheckResult("ok", "gateway", f"{address} is free")

    daemon = (read_holder(context.paths.lock_file) or {}).get("pid")
    pids = listener_pids(port)
    if daemon is not None and (daemon in pids or not pids):
        return CheckResult("ok", "gateway", f"{address} is ours: daemon {daemon}")

    for pid in pids:
        unit = own_unit(f"/proc/{pid}/cgroup")
        if unit is not None and unit[0] == SERVICE:
            who = "`sudo -u orch orch doctor`" if unit[1] == "system" else "`orch doctor` as its user"
            return CheckResult(
                "note", "gateway", f"{address} is the {unit[1]}'s service's: daemon {pid}", f"{who} sees more"
            )

    if 1 in pids:
        return CheckResult("ok", "gateway", f"{address} is held by systemd, for orch.socket")

    who = ", ".join(f"{_name(pid)} ({pid})" for pid in sorted(pids)) or "a process of another user"
    fix = f"stop it, or set `gateway.port` in {context.paths.config_file}"
    return CheckResult("problem", "gateway", f"{address} is taken by {who}", fix)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process that has ended"


def check_profiles(context: DoctorContext) -> Iterator[CheckResult]:
    found, problems = ProfileStore(context.paths).load_all()
    for problem in problems:
        yield CheckResult("problem", "profiles", str(problem), "`orch profile check`")

    mine = [each for each in found if not is_shipped(each)]
    yield CheckResult("ok", "profiles", f"{len(found)} are valid, {len(mine)} of them yours")
    for profile in mine:  # the shipped ones say where one would have to put the model
        model = model_file(context.paths, profile.model)
        if not model.generated and not os.access(model.path, os.R_OK):
            why = "may not be read" if os.path.exists(model.path) else "is not there"
            text = f"`{profile.name}`: {model.path} {why}"
            yield CheckResult("warning", "models", text, f"`orch profile set {profile.name} model=PATH`")


def is_shipped(profile: Profile) -> bool:
    """Return whether a profile came with orch."""
    return os.path.dirname(profile.file) == shipped_directory()


def check_engines(context: DoctorContext) -> Iterator[CheckResult]:
    registry = EngineRegistry(context.paths, context.environment)
    store = VerificationStore(context.paths.verifications_file)
    found = 0
    for name in registry.ids():
        try:
            engine = registry.resolve(name)
        except EngineMissingError as error:
            yield CheckResult("note", "engines", error.message, error.hint)
        except OrchError as error:
            yield CheckResult("warning", "engines", f"`{name}`: {error.message}", error.hint)
        else:
            found += 1
            text = f"`{name}`: {engine.build}, {engine.path}"
            if engine.changed:
                fix = f"`orch engines add {name} {engine.path}` if that is meant"
                yield CheckResult("warning", "engines", f"{text}: not the program that was added", fix)
                continue

            known = store.find(build_key(engine.sha256, engine.path))
            if known is None:
                yield CheckResult("ok", "engines", f"{text}; not verified (`orch verify {name}`)")
            elif known.verdict == "wrong":
                fix = f"`orch verify {name}` shows it; use another build or engine for what it names"
                yield CheckResult("warning", "engines", f"{text} computes wrongly: {known.summary}", fix)
            else:
                yield CheckResult("ok", "engines", f"{text}; verified {known.when[:10]}: {known.verdict}")

            yield from _check_starts(context, engine)

    if not found:
        yield CheckResult("problem", "engines", "there is none", "`orch engines build upstream`")


def _check_starts(context: DoctorContext, engine: Engine) -> Iterator[CheckResult]:
    """Yield a note where the newest start of a model on this build took other memory than the plan knows."""
    newest = {}
    for entry in StartStore(context.paths.starts_file).entries():
        if entry.get("build") == engine_key(engine):
            newest[entry.get("model")] = entry

    for entry in newest.values():
        told = entry.get("contradicts")
        if isinstance(told, list) and told:
            model, day = str(entry.get("model")).partition(":")[0], str(entry.get("when"))[:10]
            text = f"`{engine.id}`: {model} took other memory on {day} than the plan knows: {'; '.join(map(str, told))}"
            yield CheckResult("note", "engines", text, "plans of it go by what was read; is there a newer orch?")


def check_room(context: DoctorContext) -> Iterator[CheckResult]:
    paths = context.paths
    places = [paths.data, paths.state, paths.cache]
    loaded, _ = ProfileStore(paths).load_all()
    places += [os.path.dirname(model_file(paths, each.model).path) for each in loaded]
    seen: set[int] = set()
    for place in places:
        while not os.path.isdir(place) and place != "/":
            place = os.path.dirname(place)

        device = os.stat(place).st_dev
        if device not in seen:
            seen.add(device)
            status = os.statvfs(place)
            yield judge_room("room", place, status.f_bavail * status.f_frsize >> 20)
