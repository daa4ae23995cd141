"""The root that the tests boot: Debian with systemd, and in /opt/orch what orch depends on.

    python -m tests.systemd.root

It is made once and kept in `.cache/systemd`; a change of the locked dependencies or of this file's list makes it anew.
ORCH_SYSTEMD_SUITE names another release of Debian (`trixie` has systemd 257), which is kept beside the first.
Needs root, debootstrap, systemd-nspawn, and the package indexes. orch itself is installed into the booted machine.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from orchestrator import __version__

REPOSITORY = Path(__file__).parents[2]
SUITE = os.environ.get("ORCH_SYSTEMD_SUITE") or "bookworm"
CACHE = Path(os.environ.get("ORCH_SYSTEMD_CACHE") or REPOSITORY / ".cache" / "systemd").absolute()
if SUITE != "bookworm":
    CACHE /= SUITE

ROOT = CACHE / "root"
UNIFIED_ONLY = SUITE != "bookworm"
"""Later ones boot with control groups of version 2 alone (systemd 256 and later refuse version 1)."""

MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "systemd", "systemd-sysv", "libpam-systemd", "dbus", "dbus-user-session",
    "python3", "python3-venv", "ca-certificates", "procps", "libgomp1",
)  # fmt: skip
VENV = "/opt/orch"
NEEDED = ("debootstrap", "systemd-nspawn", "nsenter")


def missing() -> str | None:
    """Why no machine can be booted here; None when one can."""
    if os.geteuid() != 0:
        return "needs root: systemd-nspawn and debootstrap"

    absent = [each for each in NEEDED if shutil.which(each) is None]
    return f"not installed: {', '.join(absent)} (apt-get install systemd-container debootstrap)" if absent else None


def _system_key() -> str:
    return " ".join((SUITE, *PACKAGES))


def _key() -> str:
    """What the root depends on."""
    return _system_key() + " " + hashlib.sha256((REPOSITORY / "uv.lock").read_bytes()).hexdigest()


def made() -> bool:
    return _stamp("all") == _key()


def _stamp(name: str) -> str:
    file = CACHE / f"{name}.key"
    return file.read_text() if file.exists() else ""


def make() -> Path:
    """The root, made when it is absent or old.

    :raises subprocess.CalledProcessError: when a step fails; what it printed is on standard error
    """
    if made():
        return ROOT

    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "all.key").unlink(missing_ok=True)
    if _stamp("system") != _system_key():
        shutil.rmtree(ROOT, ignore_errors=True)
        include = ",".join(PACKAGES)
        _run("debootstrap", "--variant=minbase", f"--include={include}", SUITE, str(ROOT), MIRROR)
        (CACHE / "system.key").write_text(_system_key())

    _install_dependencies()
    (CACHE / "all.key").write_text(_key())
    return ROOT


def build_wheel(directory: Path, version: str | None = None) -> Path:
    """orch as users get it; the same as another version of it."""
    source = REPOSITORY
    if version is not None:
        source = directory / "source"
        source.mkdir()
        for name in ("orchestrator", "tui", "profiles", "systemd"):
            shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))

        for name in ("LICENSE", "README.md"):
            shutil.copy(REPOSITORY / name, source)

        for name in ("pyproject.toml", "orchestrator/__init__.py"):
            text = (REPOSITORY / name).read_text()
            assert f'"{__version__}"' in text, name
            (source / name).write_text(text.replace(f'"{__version__}"', f'"{version}"'))

    _run(_tool("uv"), "build", "--quiet", "--wheel", "--out-dir", str(directory), str(source))
    return next(directory.glob("*.whl"))


def _install_dependencies() -> None:
    # The machine has no network of its own: the wheels are brought to it.
    wheels, requirements = CACHE / "wheels", CACHE / "requirements.txt"
    export = ("export", "--quiet", "--locked", "--no-dev", "--extra", "embedded", "--no-emit-project")
    _run(_tool("uv"), *export, "--output-file", str(requirements), cwd=REPOSITORY)
    python = subprocess.run(
        ["chroot", str(ROOT), "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    download = ("-m", "pip", "download", "--quiet", "--only-binary=:all:", f"--python-version={python}")
    _run(sys.executable, *download, "--dest", str(wheels), "--requirement", str(requirements))
    shutil.rmtree(f"{ROOT}{VENV}", ignore_errors=True)
    _inside("python3", "-m", "venv", VENV)
    install = (f"{VENV}/bin/pip", "install", "--quiet", "--no-index", "--no-deps", "--find-links=/mnt/wheels")
    _inside(*install, "--requirement=/mnt/requirements.txt")


def _inside(*words: str) -> None:
    binds = (
        f"--bind-ro={CACHE / 'wheels'}:/mnt/wheels",
        f"--bind-ro={CACHE / 'requirements.txt'}:/mnt/requirements.txt",
    )
    nspawn = (
        "systemd-nspawn",
        "--quiet",
        "--directory",
        str(ROOT),
        "--register=no",
        "--keep-unit",
        "--private-network",
    )
    _run(*nspawn, *binds, "--", *words)


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _run(*words: str, cwd: Path | None = None) -> None:
    subprocess.run(words, stdout=sys.stderr, stdin=subprocess.DEVNULL, cwd=cwd, check=True)


if __name__ == "__main__":
    reason = missing()
    if reason is not None:
        sys.exit(reason)

    make()
