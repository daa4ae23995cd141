"""Programs by what /proc shows of them."""

from __future__ import annotations

import pytest

from orchestrator.core.vram.process_kinds import Identity, ProcessFacts, ProcessKind, identify


def of(comm: str, line: str = "", program: str = "") -> Identity:
    return identify(ProcessFacts(7, comm, tuple(line.split("|")) if line else (), program), {})


@pytest.mark.parametrize(
    ("comm", "line", "program", "kind", "name"),
    [
        ("kwin_wayland", "/usr/bin/kwin_wayland|--wayland-fd|7", "", "compositor", "KWin"),
        ("gnome-shell", "/usr/bin/gnome-shell", "/usr/bin/gnome-shell", "compositor", "GNOME Shell"),
        ("Xwayland", "/usr/bin/Xwayland|:0|-rootless", "", "compositor", "X server"),
        ("Hyprland", "Hyprland", "/usr/bin/Hyprland", "compositor", "Hyprland"),
        ("plasmashell", "/usr/bin/plasmashell|--no-respawn", "", "desktop", "Plasma"),
        ("firefox-bin", "/usr/lib/firefox/firefox-bin", "/usr/lib/firefox/firefox-bin", "browser", "Firefox"),
        ("Isolated Web Co", "/usr/lib/firefox/firefox-bin|-contentproc", "", "browser", "Firefox"),
        ("chrome", "/opt/google/chrome/chrome --type=gpu-process --ozone-platform=wayland", "", "browser", "Chrome"),
        ("msedge", "/opt/microsoft/msedge/msedge", "", "browser", "Edge"),
        ("vivaldi-bin", "/opt/vivaldi/vivaldi-bin|--type=gpu-process", "", "browser", "vivaldi-bin"),
        ("llama-server", "/opt/llama.cpp/llama-server|-m|/usr/share/ollama/m.gguf", "", "engine", "llama.cpp"),
        ("llama-server", "/usr/lib/ollama/llama-server|--model|x", "", "engine", "Ollama"),
        ("ollama", "/usr/local/bin/ollama|runner|--ollama-engine", "", "engine", "Ollama"),
        ("VLLM::EngineCor", "VLLM::EngineCore", "/usr/bin/python3.12", "engine", "vLLM"),
        ("vllm", "/venv/bin/python|/venv/bin/vllm|serve|Qwen/Qwen3", "/usr/bin/python3.12", "engine", "vLLM"),
        ("python3", "python3|-m|vllm.entrypoints.openai.api_server", "/usr/bin/python3.11", "engine", "vLLM"),
        ("koboldcpp-linux", "./koboldcpp-linux-x64|--model|m.gguf", "", "engine", "KoboldCpp"),
        ("node", "/home/me/.lmstudio/.internal/utils/node|worker.js", "", "engine", "LM Studio"),
        ("python", "/venv/bin/python|/home/me/ComfyUI/main.py|--listen", "/usr/bin/python3.12", "engine", "ComfyUI"),
        ("Main", "/home/me/.steam/steamapps/common/Hades/Hades", "", "game", "Hades"),
        (
            "Cyberpunk2077.e",
            "Z:\\games\\Cyberpunk2077.exe|-fast",
            "/home/me/.steam/steamapps/common/Proton 9.0/files/bin/wine64-preloader",
            "game",
            "Cyberpunk2077.exe",
        ),
        ("steamwebhelper", "./steamwebhelper|-lang=en_US", "", "game", "Steam"),
        ("blender", "/usr/bin/blender|scene.blend", "/usr/bin/blender", "other", "blender"),
        ("python3", "python3|-u|train.py|vllm", "/usr/bin/python3.11", "other", "python3.11 train.py"),
        ("a_program", "", "", "other", "a_program"),
        ("google-chrome-s", "", "", "browser", "Chrome"),
        ("firefox", "", "/usr/lib/firefox/firefox (deleted)", "browser", "Firefox"),
        ("vim", "vim|ComfyUI/main.py", "/usr/bin/vim", "other", "vim"),
    ],
)
def test_a_program_is_known_by_its_file_or_its_command(
    comm: str, line: str, program: str, kind: ProcessKind, name: str
) -> None:
    assert of(comm, line, program) == Identity(kind, name)


def test_an_engine_of_ours_has_its_profiles_name() -> None:
    assert identify(ProcessFacts(7, "llama-server"), {7: "chat"}) == Identity("orch", "chat")
    assert identify(ProcessFacts(8, "llama-server"), {7: "chat"}) == Identity("engine", "llama.cpp")
