"""The plans for several machines, and the files that a plan writes and takes away."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.dialect.environment import child_environment
from orchestrator.core.errors import OrchError, UsageError
from orchestrator.core.setup.service_plan import RemoveFile, Run, Step, WriteFile
from orchestrator.core.vram.desktop_facts import DesktopFacts, LoginSession
from orchestrator.core.vram.reclaim import install_steps, plan_lines, reclaim_plan, uninstall_steps
from orchestrator.core.vram.session_files import MARK, RULES, is_ours
from tests.unit.core.vram.desktops import DESKTOP, INTEL, MESA, NVIDIA, SESSIONS, SWAY


def files(steps: tuple[Step, ...]) -> dict[str, str]:
    return {each.path: each.text for each in steps if isinstance(each, WriteFile)}


def execs(steps: tuple[Step, ...]) -> dict[str, str]:
    """The base name of each session without `orch-`, and its command."""
    sessions = {path: text for path, text in files(steps).items() if path != RULES}
    return {
        Path(path).stem.removeprefix("orch-"): LoginSession(path, text).fields["Exec"]
        for path, text in sessions.items()
    }


def test_a_desktop_with_an_integrated_gpu_draws_there_first() -> None:
    plan = reclaim_plan(DESKTOP)
    assert [way.name for way in plan.ways] == ["integrated", "software", "console"]
    assert plan.situation.endswith("462 MiB of device memory now: KWin 312, Plasma 96, X server 54 MiB")
    assert [way.gain for way in plan.ways] == [
        "up to 462 MiB measured now",
        "about 336 MiB (462 MiB measured now, less the 126 MB published for one machine)",
        "up to 462 MiB measured now",
    ]
    assert plan.ways[0].first == ("move the screen on DP-1 of card1 (nvidia) to a socket of the mainboard",)
    assert plan.notes == ("Xfce Session (/usr/share/xsessions/xfce.desktop): orch knows no way for it",)
    shown = "\n".join(plan_lines(plan, "sudo orch"))
    assert "sudo orch vram reclaim --install integrated" in shown and "sudo systemctl isolate" in shown


def test_a_card_whose_screens_were_moved_is_left_alone_by_the_session() -> None:
    moved = replace(DESKTOP, cards=(replace(INTEL, screens=("HDMI-A-1",)), replace(NVIDIA, screens=())))
    way, steps = install_steps(moved, None)
    assert way == "integrated" and reclaim_plan(moved).ways[0].first == ()
    assert execs(steps) == {
        "plasma-integrated": "/usr/bin/env KWIN_DRM_DEVICES=/dev/dri/orch-display-1 XDG_CURRENT_DESKTOP=KDE "
        "/usr/lib/x86_64-linux-gnu/libexec/plasma-dbus-run-session-if-needed /usr/bin/startplasma-wayland",
        "sway-integrated": "/usr/bin/env WLR_DRM_DEVICES=/dev/dri/orch-display-1 sway",
    }
    (rule,) = files(steps)[RULES].splitlines()[1:]
    assert rule == (
        'SUBSYSTEM=="drm", KERNEL=="card[0-9]*", KERNELS=="0000:00:02.0", SYMLINK+="dri/orch-display-1", '
        'TAG+="mutter-device-preferred-primary"'
    )
    assert [str(each) for each in steps if isinstance(each, Run)] == [
        "run udevadm control --reload",
        "run udevadm trigger --subsystem-match=drm",
    ]


def test_a_card_with_screens_comes_second_and_mutters_tag_is_for_gnome_alone() -> None:
    facts = replace(DESKTOP, sessions=tuple(each for each in SESSIONS if each.name == "Sway"))
    _, steps = install_steps(facts, "integrated")
    assert execs(steps) == {
        "sway-integrated": "/usr/bin/env WLR_DRM_DEVICES=/dev/dri/orch-display-1:/dev/dri/orch-display-2 sway"
    }
    assert "TAG" not in files(steps)[RULES] and 'KERNELS=="0000:01:00.0"' in files(steps)[RULES]


def test_each_compositor_draws_on_the_cpu_in_its_own_way() -> None:
    mesa = f"__EGL_VENDOR_LIBRARY_FILENAMES={MESA} __GLX_VENDOR_LIBRARY_NAME=mesa "
    way, steps = install_steps(DESKTOP, "software")
    software = f"/usr/bin/env LIBGL_ALWAYS_SOFTWARE=1 GALLIUM_DRIVER=llvmpipe {mesa}"
    assert execs(steps) == {
        "gnome-software": f"{software}XDG_CURRENT_DESKTOP=GNOME /usr/bin/gnome-session",
        "plasma-software": f"{software}KWIN_COMPOSE=Q XDG_CURRENT_DESKTOP=KDE "
        "/usr/lib/x86_64-linux-gnu/libexec/plasma-dbus-run-session-if-needed /usr/bin/startplasma-wayland",
        "sway-software": f"{software}WLR_RENDERER=pixman sway",
        "plasmax11-software": f"{software}KWIN_COMPOSE=N XDG_CURRENT_DESKTOP=KDE /usr/bin/startplasma-x11",
    }
    assert not any(isinstance(each, Run) for each in steps)  # nothing but files
    amd = replace(DESKTOP, cards=(replace(NVIDIA, driver="amdgpu"),))
    assert (
        mesa.strip() not in files(install_steps(amd, None)[1])["/usr/share/wayland-sessions/orch-sway-software.desktop"]
    )


def test_without_an_integrated_gpu_the_session_drawn_by_the_cpu_is_the_best() -> None:
    plan = reclaim_plan(replace(DESKTOP, cards=(NVIDIA,), mesa_vendor_file=""))
    assert [way.name for way in plan.ways] == ["software", "console"]
    assert any("firmware setup" in each for each in plan.notes)
    assert any("libegl-mesa0" in each for each in plan.ways[0].cautions)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (DesktopFacts(), "no graphics card: there is nothing to get back"),
        (DesktopFacts(cards=(INTEL,)), "no graphics card with memory of its own: there is nothing to get back"),
        (
            replace(DESKTOP, sessions=(), held_mib={}),
            "no program of a desktop holds device memory: there is nothing to get back",
        ),
    ],
)
def test_where_there_is_nothing_to_get_back_no_way_is_offered(facts: DesktopFacts, why: str) -> None:
    plan = reclaim_plan(facts)
    assert (plan.situation, plan.ways) == (why, ())
    with pytest.raises(UsageError, match="no way that can be installed"):
        install_steps(facts, None)


def test_while_nothing_is_held_a_way_is_installed_where_it_is_named() -> None:
    """As in a session that the CPU draws, on a machine that has another desktop as well."""
    one = next(each for each in SESSIONS if each.name == "Sway")
    written = files(install_steps(replace(DESKTOP, sessions=(one,)), "software")[1])
    drawn_by_the_cpu = replace(DESKTOP, held_mib={"KWin": 0}, written=written)
    plan = reclaim_plan(drawn_by_the_cpu)
    assert plan.situation == "no program of a desktop holds device memory now"
    assert {way.gain for way in plan.ways} == {"nothing is held now"}
    assert len(files(install_steps(drawn_by_the_cpu, "software")[1])) == 3
    with pytest.raises(UsageError, match="holds device memory now") as caught:
        install_steps(drawn_by_the_cpu, None)

    assert caught.value.details == ("ways that can be installed: integrated, software",)


def test_a_name_of_a_desktop_that_a_command_line_would_divide_is_left_out() -> None:
    text = SWAY + "DesktopNames=A B;sway;$(x);ubuntu:GNOME;\n"
    facts = replace(DESKTOP, sessions=(LoginSession("/usr/share/wayland-sessions/sway.desktop", text),))
    assert execs(install_steps(facts, "software")[1])["sway-software"].endswith(
        " XDG_CURRENT_DESKTOP=sway:ubuntu:GNOME sway"
    )


def test_what_is_not_known_is_said_with_the_published_figure() -> None:
    plan = reclaim_plan(replace(DESKTOP, held_mib=None))
    assert "not known" in plan.situation
    assert {way.gain for way in plan.ways} == {
        "not known here; published for one machine: from over 1024 MB to about 126 MB"
    }


def test_a_way_that_the_machine_does_not_have_is_refused_with_those_that_it_has() -> None:
    with pytest.raises(UsageError) as caught:
        install_steps(replace(DESKTOP, cards=(NVIDIA,)), "integrated")

    assert "ways that can be installed: software" in caught.value.details


def test_what_is_installed_is_not_installed_again_and_all_of_it_is_removed() -> None:
    _, steps = install_steps(DESKTOP, "integrated")
    installed = replace(DESKTOP, written=files(steps))
    assert install_steps(installed, "integrated") == ("integrated", ())
    assert all(is_ours(path, text) for path, text in files(steps).items())
    gone = uninstall_steps(installed)
    assert {each.path for each in gone if isinstance(each, RemoveFile)} == set(files(steps))
    assert sum(isinstance(each, Run) for each in gone) == 2
    assert uninstall_steps(DESKTOP) == ()
    only_session = replace(DESKTOP, written=files(install_steps(DESKTOP, "software")[1]))
    assert not any(isinstance(each, Run) for each in uninstall_steps(only_session))


def test_a_file_of_somebody_else_is_never_replaced() -> None:
    with pytest.raises(OrchError, match="orch has not written it"):
        install_steps(replace(DESKTOP, foreign=(RULES,)), "integrated")

    assert not is_ours("/usr/share/wayland-sessions/orch-sway-software.desktop", SWAY)
    assert not is_ours("/usr/share/wayland-sessions/sway.desktop", MARK + SWAY)


def test_no_engine_inherits_what_a_session_of_ours_sets() -> None:
    steps = [*install_steps(DESKTOP, "software")[1], *install_steps(DESKTOP, "integrated")[1]]
    commands = execs(tuple(steps)).values()
    session = dict(word.split("=", 1) for command in commands for word in command.split() if "=" in word)
    assert {"LIBGL_ALWAYS_SOFTWARE", "GALLIUM_DRIVER", "KWIN_COMPOSE", "KWIN_DRM_DEVICES"} <= set(session)
    environment = child_environment({**session, "PATH": "/bin"}, state_dir="/state", extra={})
    assert environment.keys() & session.keys() == set()


@pytest.mark.skipif(shutil.which("desktop-file-validate") is None, reason="desktop-file-utils is not installed")
def test_the_sessions_pass_desktop_file_validate(tmp_path: Path) -> None:
    for way in ("integrated", "software"):
        for path, text in files(install_steps(DESKTOP, way)[1]).items():
            if path != RULES:
                file = tmp_path / Path(path).name
                file.write_text(text)
                done = subprocess.run(["desktop-file-validate", file], capture_output=True, text=True, check=False)
                assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
