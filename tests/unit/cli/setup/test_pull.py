"""`orch pull` and `orch models` as people and scripts use them, against a hub that breaks connections."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.hub import download as downloading
from orchestrator.adapters.paths import find_paths
from orchestrator.cli import diagnostics
from orchestrator.cli import main as cli
from orchestrator.core.exit_codes import FAILED, INTERRUPTED, OK, USAGE
from orchestrator.core.plan.plan import DeviceRoom, HostRoom
from orchestrator.engines import plan as measuring
from orchestrator.engines.models import pull as pulling
from tests.fakes.hub import StubHub, serving
from tests.true_geometry import write

MOE = "org/Qwen3.6-35B-A3B-GGUF"
SPLIT = "org/Split-GGUF"
GIB_MIB = 1024


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    for quant in ("q2_k", "q4_k_m", "q8_0"):
        write(folder / f"Qwen3.6-35B-A3B-{quant.upper()}.gguf", "qwen36-35b-a3b", quant)

    for name in ("mmproj-F16.gguf", "mmproj-BF16.gguf", "mtp-Q8_0.gguf", "1.gguf", "2.gguf"):
        (folder / name).write_bytes(b"GGUF" + random.Random(name).randbytes(200_000))

    return folder


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(downloading, "PAUSES_S", (0.0,) * len(downloading.PAUSES_S))
    names = [f"Qwen3.6-35B-A3B-{quant}.gguf" for quant in ("Q2_K", "Q4_K_M", "Q8_0")]
    names += ["mmproj-F16.gguf", "mmproj-BF16.gguf", "mtp-Q8_0.gguf"]
    split = {f"big/M-Q8_0-{number:05d}-of-00002.gguf": str(models / f"{number}.gguf") for number in (1, 2)}
    with serving(StubHub({MOE: {name: str(models / name) for name in names}, SPLIT: split}, checksums=True)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The geometries' tensors are holes of many GB: what is chosen is looked at, and not fetched."""
    monkeypatch.setattr(pulling, "_free_bytes", lambda directory: 1 << 40)


def on_a_card(monkeypatch: pytest.MonkeyPatch, mib: int | None, host_mib: int) -> None:
    rooms = () if mib is None else (DeviceRoom("card", mib, 1),)  # what runs now does not choose
    monkeypatch.setattr(measuring, "measure_devices", lambda: rooms)
    monkeypatch.setattr(measuring, "measure_host", lambda: HostRoom(host_mib, host_mib))


def document(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main([*words, "--json"]) == OK
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def failure(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    assert cli.main(list(words)) == code
    return capsys.readouterr().err


def cdn_requests(hub: StubHub) -> list[str]:
    return [each.path for each in hub.requests if each.host == "cdn"]


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize(
    ("card_mib", "host_mib", "quant", "why"),
    [
        (48 * GIB_MIB, 64 * GIB_MIB, "Q8_0", "the largest that is wholly in"),
        (24 * GIB_MIB, 64 * GIB_MIB, "Q4_K_M", "the largest that is wholly in"),
        (12 * GIB_MIB, 64 * GIB_MIB, "Q4_K_M", "a part of it in host memory"),
        (None, 64 * GIB_MIB, "Q4_K_M", "in host memory"),
    ],
)
def test_the_quantisation_is_the_one_for_this_machine(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    card_mib: int | None,
    host_mib: int,
    quant: str,
    why: str,
) -> None:
    on_a_card(monkeypatch, card_mib, host_mib)
    found = document(capsys, "pull", f"hf:{MOE}", "--dry-run")
    assert found["quant"] == quant
    assert why in found["why"]
    assert found["received_bytes"] is None
    assert not os.path.exists(find_paths().models)


@pytest.mark.usefixtures("sparse")
def test_where_nothing_fits_nothing_is_chosen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_card(monkeypatch, 4 * GIB_MIB, 2 * GIB_MIB)
    said = failure(capsys, FAILED, "pull", f"hf:{MOE}")
    assert "no quantisation of org/Qwen3.6-35B-A3B-GGUF fits this machine" in said and "Q2_K" in said
    assert document(capsys, "pull", f"hf:{MOE}:Q8_0", "--dry-run")["quant"] == "Q8_0"


@pytest.mark.usefixtures("sparse")
def test_a_projector_and_a_draft_head_come_with_it_unless_they_shall_not(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "pull", f"hf:{MOE}:Q4_K_M", "--dry-run")
    roles = {each["file"]: each["role"] for each in found["files"]}
    assert roles == {
        "Qwen3.6-35B-A3B-Q4_K_M.gguf": "model",
        "mmproj-F16.gguf": "projector",
        "mtp-Q8_0.gguf": "drafter",
    }
    assert found["left_out"] == ["mmproj-BF16.gguf"]
    assert "multimodal.mmproj=" in found["next"][1] and "speculative.type=mtp" in found["next"][1]
    alone = document(capsys, "pull", f"hf:{MOE}:Q4_K_M", "--dry-run", "--no-extras")
    assert [each["role"] for each in alone["files"]] == ["model"]
    assert len(alone["next"]) == 1


def test_a_disk_without_room_is_said_with_the_figures_before_anything_is_fetched(
    capsys: pytest.CaptureFixture[str], hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "_free_bytes", lambda directory: (1 << 30) + 400_000)
    said = failure(capsys, FAILED, "pull", f"hf:{SPLIT}")
    assert "400 kB are to be fetched, 1.1 GB are free, and 1.1 GB of them are left free" in said
    assert not cdn_requests(hub)


@pytest.mark.parametrize("seed", range(3))
def test_all_parts_arrive_whatever_breaks_and_are_listed_and_removed(
    capsys: pytest.CaptureFixture[str], hub: StubHub, models: Path, seed: int
) -> None:
    hub.break_anywhere, hub.break_after = random.Random(seed), 60_000
    hub.faults |= dict.fromkeys(hub.repositories[SPLIT], "break")
    found = document(capsys, "pull", f"hf:{SPLIT}")
    assert found["received_bytes"] == found["needed_bytes"] == 400_008
    for number, each in enumerate(found["files"], 1):
        assert Path(each["path"]).read_bytes() == (models / f"{number}.gguf").read_bytes()

    hub.requests.clear()
    assert document(capsys, "pull", f"hf:{SPLIT}")["received_bytes"] == 0
    assert not cdn_requests(hub)

    (listed,) = document(capsys, "models", "list")["models"]
    assert (listed["name"], listed["parts"], listed["whole"]) == (f"hf:{SPLIT}:Q8_0", 2, True)
    assert listed["path"] == found["model"]
    gone = document(capsys, "models", "remove", f"{SPLIT}:q8_0", "--yes")
    assert gone["freed_bytes"] == 400_008
    assert os.listdir(find_paths().models) == []


def test_it_says_what_to_type_and_that_makes_a_profile(
    capsys: pytest.CaptureFixture[str], hub: StubHub, models: Path
) -> None:
    files = {"M-Q8_0.gguf": str(models / "1.gguf"), "mmproj-F16.gguf": str(models / "mmproj-F16.gguf")}
    hub.repositories = {"org/Some-Model-GGUF": {**files, "mtp-Q8_0.gguf": str(models / "mtp-Q8_0.gguf")}}
    assert cli.main(["pull", "hf:org/Some-Model-GGUF"]) == OK
    out = capsys.readouterr().out
    commands = [line.partition("orch ")[2] for line in out.splitlines() if "orch profile" in line]
    assert len(commands) == 2
    for command in commands:
        assert cli.main(shlex.split(command)) == OK

    capsys.readouterr()
    assert cli.main(["profile", "show", "some-model"]) == OK
    shown = capsys.readouterr().out
    assert re.search(r'speculative.type +"mtp"', shown)
    assert "mmproj-F16.gguf" in shown and "mtp-Q8_0.gguf" in shown
    (model,) = document(capsys, "models", "list")["models"]
    assert model["used_by"] == ["some-model"]
    assert [os.path.basename(path) for path in model["beside"]] == ["mmproj-F16.gguf", "mtp-Q8_0.gguf"]
    said = failure(capsys, USAGE, "models", "remove", model["name"], "--yes")
    assert "a profile uses hf:org/Some-Model-GGUF:Q8_0" in said and "--force" in said
    assert os.path.exists(model["path"])
    gone = document(capsys, "models", "remove", model["path"], "--yes", "--force")
    assert len(gone["removed"]) == 3
    assert document(capsys, "models", "list")["models"] == []


def test_a_profile_is_made_of_what_was_pulled_by_its_name(
    capsys: pytest.CaptureFixture[str], hub: StubHub, tmp_path: Path
) -> None:
    new = ("profile", "new", "mine", "--model", f"hf:{SPLIT}:Q8_0")
    assert f"`orch pull hf:{SPLIT}:Q8_0` fetches it" in failure(capsys, USAGE, *new)
    path = document(capsys, "pull", f"hf:{SPLIT}")["model"]
    os.rename(path, tmp_path / "away")
    assert "is not whole" in failure(capsys, USAGE, *new)
    os.rename(tmp_path / "away", path)
    written = Path(document(capsys, *new)["file"])
    assert f'model = "{path}"' in written.read_text()
    written.write_text(f'schema = 1\nmodel = "hf:{SPLIT}:Q8_0"\n')
    assert cli.main(["profile", "check", "mine"]) == USAGE
    assert "`orch pull` fetches it" in capsys.readouterr().out


def test_a_model_elsewhere_is_listed_where_a_profile_uses_it_and_never_removed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mine = tmp_path / "mine-Q4_K_M.gguf"
    mine.write_bytes(b"GGUF")
    assert cli.main(["profile", "new", "mine", "--model", str(mine)]) == OK
    capsys.readouterr()
    (listed,) = document(capsys, "models", "list")["models"]
    assert (listed["name"], listed["quant"], listed["used_by"]) == (str(mine), "Q4_K_M", ["mine"])
    assert listed["fetched"] is False
    said = failure(capsys, USAGE, "models", "remove", str(mine), "--yes", "--force")
    assert "was not fetched by orch" in said
    assert mine.exists()


def test_one_of_two_quantisations_goes_and_what_both_use_stays(
    capsys: pytest.CaptureFixture[str], hub: StubHub, models: Path
) -> None:
    names = {"M-Q8_0.gguf": "1.gguf", "M-Q2_K.gguf": "2.gguf", "mmproj-F16.gguf": "mmproj-F16.gguf"}
    hub.repositories = {"org/M-GGUF": {name: str(models / there) for name, there in names.items()}}
    for quant in ("Q8_0", "Q2_K"):
        document(capsys, "pull", f"hf:org/M-GGUF:{quant}")

    said = failure(capsys, USAGE, "models", "remove", "hf:org/M-GGUF", "--yes")
    assert "means 2 models" in said and "hf:org/M-GGUF:Q2_K" in said
    said = failure(capsys, USAGE, "models", "remove", "hf:org/M-GGUF:Q3_K", "--yes")
    assert "there is no model" in said and "hf:org/M-GGUF:Q2_K" in said
    gone = document(capsys, "models", "remove", "hf:org/M-GGUF:Q2_K", "--yes")
    assert [os.path.basename(path) for path in gone["removed"]] == ["M-Q2_K.gguf"]
    gone = document(capsys, "models", "remove", "org/M-GGUF", "--yes")
    assert [os.path.basename(path) for path in gone["removed"]] == ["M-Q8_0.gguf", "mmproj-F16.gguf"]
    assert os.listdir(find_paths().models) == []


def test_interrupted_it_keeps_what_arrived_and_lists_it_and_goes_on(
    capsys: pytest.CaptureFixture[str], hub: StubHub
) -> None:
    first = "big/M-Q8_0-00001-of-00002.gguf"
    hub.faults[first], hub.break_after = "stall", 65_536
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "pull", f"hf:{SPLIT}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    folder = Path(find_paths().models, *SPLIT.split("/"), "big")
    while sum(each.stat().st_size for each in folder.glob("*.part")) != hub.break_after:
        assert process.poll() is None
        threading.Event().wait(0.02)

    # While it is being fetched nobody may delete it.
    assert "is being fetched just now" in failure(capsys, FAILED, "models", "remove", f"hf:{SPLIT}", "--yes")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == INTERRUPTED
    assert b"what has arrived is kept" in said
    (listed,) = document(capsys, "models", "list")["models"]
    assert (listed["whole"], listed["parts"], listed["size_bytes"]) == (False, 2, 65_536)
    assert [(each["kept_bytes"], each["size_bytes"]) for each in listed["unfinished"]] == [(65_536, 200_004)]
    assert cli.main(["models", "list"]) == OK
    assert "unfinished: M-Q8_0-00001-of-00002.gguf" in capsys.readouterr().err

    hub.faults.clear()
    hub.requests.clear()
    found = document(capsys, "pull", f"hf:{SPLIT}")
    assert found["files"][0]["before"] == "partial"
    assert found["received_bytes"] == 400_008 - 65_536
    assert [each.range for each in hub.requests if each.host == "cdn"][0] == "bytes=65536-200003"


def test_a_file_that_changes_while_it_is_fetched_is_begun_anew(
    capsys: pytest.CaptureFixture[str], hub: StubHub, tmp_path: Path
) -> None:
    where = tmp_path / "changing.gguf"
    where.write_bytes(random.Random(1).randbytes(300_000))
    hub.repositories = {"org/M-GGUF": {"M-Q8_0.gguf": str(where)}}
    hub.faults["M-Q8_0.gguf"], hub.break_after, hub.breaks_left = "stall", 100_000, 1
    changed = threading.Thread(target=_change, args=(hub, where))
    changed.start()
    found = document(capsys, "pull", "hf:org/M-GGUF")
    changed.join()
    assert Path(found["model"]).read_bytes() == where.read_bytes()
    assert Path(found["model"]).stat().st_size == 400_000
    assert list(Path(found["model"]).parent.glob("*.part")) == []


def _change(hub: StubHub, where: Path) -> None:
    while hub.sent < hub.break_after:
        threading.Event().wait(0.01)

    where.write_bytes(random.Random(2).randbytes(400_000))
    hub.faults["M-Q8_0.gguf"] = "break"
    hub.released.set()


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("hf:org/Nowhere", ("not there, or private", "HF_TOKEN")),
        ("hf:nonsense", ("names no repository", "orch pull hf:")),
        (f"hf:{MOE}:Q4_K_S", ("has no Q4_K_S", "it has: Q2_K, Q4_K_M, Q8_0", f"orch pull hf:{MOE}:Q4_K_M")),
    ],
)
def test_what_is_not_there_is_said_with_what_is(
    capsys: pytest.CaptureFixture[str], reference: str, said: tuple[str, ...]
) -> None:
    shown = failure(capsys, USAGE, "pull", reference)
    assert all(each in shown for each in said)


def test_without_a_network_the_mirror_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert "HF_ENDPOINT" in failure(capsys, FAILED, "pull", f"hf:{SPLIT}")


def test_several_models_in_one_repository_are_not_chosen_among(
    capsys: pytest.CaptureFixture[str], hub: StubHub, models: Path
) -> None:
    names = ("Small-Q4_K_M.gguf", "Large-Q4_K_M.gguf")
    hub.repositories = {"org/M-GGUF": dict.fromkeys(names, str(models / "1.gguf"))}
    said = failure(capsys, USAGE, "pull", "hf:org/M-GGUF")
    assert "2 different models" in said and all(name in said for name in names)


@pytest.mark.parametrize("name", ["../../evil-Q8_0.gguf", "/etc/evil-Q8_0.gguf", "a/../b.gguf", ".hidden.gguf"])
def test_a_file_whose_name_leads_elsewhere_is_refused(
    capsys: pytest.CaptureFixture[str], hub: StubHub, models: Path, tmp_path: Path, name: str
) -> None:
    hub.repositories = {"org/M-GGUF": {name: str(models / "1.gguf")}}
    assert "has a name that is not used here" in failure(capsys, FAILED, "pull", "hf:org/M-GGUF")
    assert list(tmp_path.rglob("*.gguf")) == []


def test_removing_asks_first_and_nobody_there_means_no(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document(capsys, "pull", f"hf:{SPLIT}")

    class Terminal:
        answer = "n\n"

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    assert "add --yes" in failure(capsys, USAGE, "models", "remove", f"hf:{SPLIT}")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdin", terminal)
    said = failure(capsys, FAILED, "models", "remove", f"hf:{SPLIT}")
    assert "M-Q8_0-00001-of-00002.gguf" in said and "remove these files, 400 kB? [y/N]" in said
    assert document(capsys, "models", "list")["models"]
    terminal.answer = "y\n"
    assert cli.main(["models", "remove", f"hf:{SPLIT}"]) == OK
    assert "400 kB freed" in capsys.readouterr().out
    assert document(capsys, "models", "list")["models"] == []


@pytest.mark.parametrize("name", ["M-Q8_0.gguf", "mmproj-F16.gguf"])
def test_what_was_never_finished_is_listed_and_removed(capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = Path(find_paths().models, "org", "M-GGUF")
    folder.mkdir(parents=True)
    (folder / f"{name}.5000-0123456789abcdef.part").write_bytes(bytes(1200))
    (listed,) = document(capsys, "models", "list")["models"]
    assert (listed["whole"], listed["files"], listed["size_bytes"]) == (False, [], 1200)
    gone = document(capsys, "models", "remove", listed["name"], "--yes")
    assert gone["freed_bytes"] == 1200
    assert os.listdir(find_paths().models) == []


def test_a_gated_repository_opens_with_the_token_that_is_kept(
    capsys: pytest.CaptureFixture[str], hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(SPLIT)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    said = failure(capsys, USAGE, "pull", f"hf:{SPLIT}")
    assert "gated" in said and "accept its terms" in said
    (tmp_path / "token").write_text("hf_right\n")
    words = [sys.executable, "-m", "orchestrator", "pull", f"hf:{SPLIT}"]  # the client looks where it is, once
    done = subprocess.run(words, env={**os.environ, "HF_HOME": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == OK, done.stderr
    assert "hf_right" not in done.stdout + done.stderr


def test_on_a_terminal_the_progress_is_shown_and_the_token_never(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.cli.setup import pull as verb

    monkeypatch.setattr(diagnostics, "_on_terminal", lambda: True)
    monkeypatch.setattr(verb, "SHOWN_EVERY_S", 0.0)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert cli.main(["pull", f"hf:{SPLIT}"]) == OK
    captured = capsys.readouterr()
    lines = [line for line in captured.err.replace("\x1b[2K", "").split("\r") if " % " in line]
    assert max(map(len, lines)) < 80
    assert any("00001-of-00002.gguf  " in line and "/s" in line and " left" in line for line in lines)
    assert "100 %  400 kB of 400 kB" in lines[-1]
    assert "hf_right" not in captured.err + captured.out
