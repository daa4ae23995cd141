"""Machines with desktops, for the tests of `orch vram reclaim`."""

from __future__ import annotations

from orchestrator.core.vram.desktop_facts import DesktopFacts, GraphicsCard, LoginSession

PLASMA = """\
[Desktop Entry]
Exec=/usr/lib/x86_64-linux-gnu/libexec/plasma-dbus-run-session-if-needed /usr/bin/startplasma-wayland
TryExec=/usr/bin/startplasma-wayland
DesktopNames=KDE
Name=Plasma (Wayland)
Name[de]=Plasma (Wayland) auf Deutsch
Comment=Plasma by KDE
X-KDE-PluginInfo-Version=5.27.5
"""
PLASMA_X11 = "[Desktop Entry]\nType=XSession\nExec=/usr/bin/startplasma-x11\nDesktopNames=KDE\nName=Plasma (X11)\n"
GNOME = """\
[Desktop Entry]
Name=GNOME on Wayland
Exec=/usr/bin/gnome-session
TryExec=/usr/bin/gnome-session
Type=Application
DesktopNames=GNOME;
X-GDM-SessionRegisters=true

[Desktop Action other]
Name=Not the session
Exec=/bin/false
"""
SWAY = "[Desktop Entry]\nName=Sway\nComment=An i3-compatible Wayland compositor\nExec=sway\nType=Application\n"
XFCE = "[Desktop Entry]\nName=Xfce Session\nExec=startxfce4\nType=Application\n"

NVIDIA = GraphicsCard("card1", "nvidia", "0000:01:00.0", integrated=False, screens=("DP-1",))
INTEL = GraphicsCard("card0", "i915", "0000:00:02.0", integrated=True)
SESSIONS = tuple(
    LoginSession(f"/usr/share/{path}.desktop", text)
    for path, text in {
        "wayland-sessions/gnome": GNOME,
        "wayland-sessions/plasma": PLASMA,
        "wayland-sessions/sway": SWAY,
        "xsessions/plasmax11": PLASMA_X11,
        "xsessions/xfce": XFCE,
    }.items()
)
MESA = "/usr/share/glvnd/egl_vendor.d/50_mesa.json"
HELD = {"KWin": 312, "Plasma": 96, "X server": 54}
DESKTOP = DesktopFacts(cards=(INTEL, NVIDIA), sessions=SESSIONS, held_mib=HELD, mesa_vendor_file=MESA)
