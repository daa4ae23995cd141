"""All of an installation, or none of it: each of its steps is made to fail, on a real directory with real programs."""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path

import pytest

from orchestrator.adapters.systemd.steps import Tools, perform_steps
from orchestrator.core.errors import OrchError
from orchestrator.core.setup.service_plan import (
    MakeDirectory,
    RemoveFile,
    RemoveTree,
    Run,
    ServiceHost,
    Step,
    WriteFile,
    install_steps,
    uninstall_steps,
)

UNITS = {"orch.service": "new service", "orch.socket": "new socket"}

SYSTEMCTL = """\
#!/bin/sh
# As much of systemctl as an installation sees: a link for what is enabled, a file for what runs.
echo "$*" >> "$FAKE/log"
[ "$1" = --user ] && shift
verb=$1; shift
for unit in "$@"; do
  case $verb in
    enable) ln -s "$FAKE/$unit" "$FAKE/wants-$unit";;
    disable) rm -f "$FAKE/wants-$unit";;
    start) touch "$FAKE/runs-$unit";;
    stop) rm -f "$FAKE/runs-$unit";;
  esac
done
[ "$verb" != "$FAIL" ] || { echo "no $verb today" >&2; exit 1; }
"""


class Fake:
    """A machine that is a directory, on which one verb of systemctl may fail after having done its work."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.files = root / "machine"
        (root / "bin").mkdir()
        self.files.mkdir()
        program = root / "bin" / "systemctl"
        program.write_text(SYSTEMCTL)
        program.chmod(0o755)
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE", str(self.files))
        self.fail("nothing")

    def fail(self, verb: str) -> None:
        self._monkeypatch.setenv("FAIL", verb)

    def snapshot(self) -> dict[str, str]:
        found = {}
        for path in sorted(self.files.rglob("*")):
            if path.name != "log":
                name = str(path.relative_to(self.files))
                found[name] = os.readlink(path) if path.is_symlink() else "dir" if path.is_dir() else path.read_text()

        return found

    def install(self, *, over: str | None = None) -> tuple[Step, ...]:
        """The steps of an installation, over an older one that runs when there is a text for it."""
        units = self.files / "units"
        found: dict[str, str] = {}
        state: tuple[str, ...] = ()
        if over is not None:
            units.mkdir()
            (units / "orch.service").write_text(over)
            (self.files / "wants-orch.service").symlink_to(self.files / "orch.service")
            (self.files / "runs-orch.service").touch()
            found, state = {str(units / "orch.service"): over}, ("orch.service",)

        machine = ServiceHost("user", str(units), units=found, enabled=state, active=state)
        return install_steps(machine, UNITS, ("/bin/true",))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(tmp_path, monkeypatch)


def run(steps: tuple[Step, ...]) -> None:
    perform_steps(steps, Tools(), "/", lambda step: None)


def fails_at(number: int, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same steps, but one does not happen."""
    return (*steps[:number], Run(("false",)), *steps[number + 1 :])


@pytest.mark.parametrize(
    ("over", "number"), [*((None, n) for n in range(7)), *(("an older service", n) for n in range(9))]
)
def test_whichever_step_fails_everything_is_as_it_was(fake: Fake, over: str | None, number: int) -> None:
    steps = fake.install(over=over)
    before = fake.snapshot()
    assert len(steps) == (7 if over is None else 9)
    with pytest.raises(OrchError, match="`false` failed") as caught:
        run(fails_at(number, steps))

    assert caught.value.details[-1] == "everything is as it was before"
    assert fake.snapshot() == before


@pytest.mark.parametrize("over", [None, "an older service"])
@pytest.mark.parametrize("verb", ["daemon-reload", "enable", "start"])
def test_a_command_that_fails_after_half_of_its_work_is_undone_as_well(fake: Fake, over: str | None, verb: str) -> None:
    steps = fake.install(over=over)
    before = fake.snapshot()
    fake.fail(verb)
    with pytest.raises(OrchError, match=verb) as caught:
        run(steps)

    assert f"no {verb} today" in caught.value.details
    left = fake.snapshot()
    if over is None or verb != "start":
        assert left == before
    else:  # the old one cannot be started either: that is said
        assert any("could not undo `run systemctl --user stop" in line for line in caught.value.details)


@pytest.mark.parametrize("over", [None, "an older service"])
def test_an_installation_that_nothing_hinders_is_whole(fake: Fake, over: str | None) -> None:
    run(fake.install(over=over))
    found = fake.snapshot()
    assert {name for name in found if name.startswith(("wants", "runs"))} == {
        "wants-orch.service", "wants-orch.socket", "runs-orch.service", "runs-orch.socket",
    }  # fmt: skip
    assert found["units/orch.service"] == "new service"
    assert found["units/orch.socket"] == "new socket"


@pytest.mark.parametrize("number", range(6))
def test_a_removal_that_fails_leaves_the_service_as_it_was(fake: Fake, number: int) -> None:
    steps = fake.install()
    run(steps)
    before = fake.snapshot()
    units = {str(path): path.read_text() for path in (fake.files / "units").iterdir()}
    both = ("orch.socket", "orch.service")
    removal = uninstall_steps(ServiceHost("user", str(fake.files / "units"), units=units, enabled=both, active=both))
    assert len(removal) == 6
    with pytest.raises(OrchError):
        run(fails_at(number, removal))

    assert fake.snapshot() == before


def test_an_interrupt_undoes_as_a_failure_does(fake: Fake) -> None:
    steps = fake.install()
    before = fake.snapshot()

    def interrupt(step: Step) -> None:
        if step is steps[-1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform_steps(steps, Tools(), "/", interrupt)

    assert fake.snapshot() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_closes_and_a_term_undo_as_well(fake: Fake, number: signal.Signals) -> None:
    steps = fake.install(over="an older service")
    before = fake.snapshot()
    handler = signal.getsignal(number)

    def end(step: Step) -> None:
        if step is steps[-1]:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        perform_steps(steps, Tools(), "/", end)

    assert fake.snapshot() == before
    assert signal.getsignal(number) is handler


def test_nothing_interrupts_what_undoes(tmp_path: Path) -> None:
    done = tmp_path / "undone"
    first = Run(("true",), ("touch", str(done)))
    second = Run(
        ("false",), ("sh", "-c", f"kill -TERM {os.getpid()}; kill -HUP {os.getpid()}; kill -INT {os.getpid()}")
    )
    with pytest.raises(OrchError, match="`false` failed"):
        run((first, second))

    assert done.exists()


def test_a_purge_that_fails_half_way_does_not_bring_the_service_back(tmp_path: Path) -> None:
    unit, tree, odd = tmp_path / "unit", tmp_path / "tree", tmp_path / "odd"
    unit.write_text("")
    tree.mkdir()
    odd.write_text("no directory")
    with pytest.raises(OrchError) as caught:
        run((RemoveFile(str(unit)), RemoveTree(str(tree)), RemoveTree(str(odd))))

    assert caught.value.details[-1] == "what was removed before this stays removed"
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]


def test_of_a_link_to_a_tree_only_the_link_goes(tmp_path: Path) -> None:
    (tmp_path / "disk" / "film").mkdir(parents=True)
    (tmp_path / "orch").symlink_to(tmp_path / "disk")
    run((RemoveTree(str(tmp_path / "orch")),))
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]
    assert (tmp_path / "disk" / "film").exists()


def test_a_directory_that_is_there_is_taken_over_and_given_back(tmp_path: Path) -> None:
    place = tmp_path / "etc"
    place.mkdir(mode=0o755)
    step = MakeDirectory(str(place), pwd.getpwuid(os.geteuid()).pw_name)
    with pytest.raises(OrchError):
        run((step, Run(("false",))))

    assert place.stat().st_mode & 0o777 == 0o755
    run((step,))
    assert place.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_cannot_be_made_undoes_those_before_it(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    me = os.environ.get("USER", "root")
    steps = (MakeDirectory(str(tmp_path / "a" / "b"), "root"), MakeDirectory(str(tmp_path / "taken" / "c"), "root"))
    if os.geteuid() != 0:
        pytest.skip(f"{me} may not give directories to root")

    with pytest.raises(OrchError):
        run(steps)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


def test_a_file_comes_back_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "unit"
    path.write_text("old")
    path.chmod(0o640)
    for step in (WriteFile(str(path), "new"), RemoveFile(str(path))):
        with pytest.raises(OrchError):
            run((step, Run(("false",))))

        assert (path.read_text(), path.stat().st_mode & 0o777) == ("old", 0o640)


def test_what_cannot_be_undone_is_said(tmp_path: Path) -> None:
    with pytest.raises(OrchError) as caught:
        run((Run(("true",), ("false",)), Run(("false",))))

    assert caught.value.details[-1] == "could not undo `run true`: `false` failed"


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(OrchError, match="`no-such-program` is not installed here"):
        run((Run(("no-such-program", "--now")),))


def test_a_tree_that_is_gone_already_is_no_failure(tmp_path: Path) -> None:
    run((RemoveTree(str(tmp_path / "gone")),))
    assert list(tmp_path.iterdir()) == []
