"""`orch plan` as people and scripts use it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.file_stamps import file_identity
from orchestrator.adapters.gguf.reader import read_gguf
from orchestrator.adapters.gguf.writer import Field, TensorData, write_gguf, zeros
from orchestrator.adapters.paths import find_paths
from orchestrator.adapters.store.starts import StartStore
from orchestrator.api import client
from orchestrator.cli import main as cli
from orchestrator.core.exit_codes import OK, USAGE
from orchestrator.core.plan.plan import DeviceRoom
from orchestrator.core.starts.readback import MeasuredDevice, MeasuredStart
from orchestrator.engines import plan as gathering
from orchestrator.engines.plan_target import find_target
from orchestrator.engines.registry import engine_key
from tests.fakes.hub import StubHub, serving
from tests.true_geometry import write

MIB = 1 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for quant in ("q2_k", "q4_k_m", "q8_0"):
        write(folder / f"Qwen3.6-35B-A3B-{quant.upper()}.gguf", "qwen36-35b-a3b", quant)

    write(folder / "Llama-3.1-8B-Q4_K_M.gguf", "llama31-8b", "q4_k_m")
    write(folder / "Qwen3.6-35B-A3B-UD-IQ4_XS.gguf", "llama31-8b")  # called alike, and another model
    (folder / "Qwen3.6-35B-A3B-Q6_K.gguf").write_bytes(b"GGUF")  # half a download
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def moe(models: Path) -> str:
    return str(models / "Qwen3.6-35B-A3B-Q4_K_M.gguf")


@pytest.fixture
def dense(models: Path) -> str:
    return str(models / "Llama-3.1-8B-Q4_K_M.gguf")


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main(["plan", *words, "--json"]) == OK
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["plan", *words]) == USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_the_document_has_what_scripts_are_promised(capsys: pytest.CaptureFixture[str], moe: str) -> None:
    plan = planned(capsys, moe, "--vram", "12G", "--ram", "64G", "--context", "128k")
    assert plan["verdict"] == "fits_with_offload"
    (device,) = plan["devices"]
    assert (device["name"], device["total_mib"], device["free_mib"]) == ("device", None, 12288)
    assert device["need_mib"]["low"] <= device["need_mib"]["high"] <= 12288
    assert device["components"]["weights"]["kind"] == "exact"
    assert device["components"]["kv"]["mib"] == 10 * 2 * 2 * 256 * 2 * 131072 / MIB
    assert device["need_mib"]["high"] == pytest.approx(sum(each["mib"] for each in device["components"].values()), 1e-6)
    assert plan["host"]["free_mib"] == 65536
    assert plan["host"]["components"]["weights"]["mib"] > 8000
    assert plan["settings"]["context.size"] == 131072
    assert plan["settings"]["memory.n_cpu_moe"] == plan["n_cpu_moe_min"] > 0
    assert plan["context_max"] >= 131072
    assert set(plan["speed"]["decode_tok_s"]) == {"low", "high"}
    assert {price["choice"] for price in plan["prices"]} >= {"mtp", "kv", "slots", "ubatch", "expert_layer"}
    assert {source["figures"] for source in plan["sources"]} >= {"compute buffers", "free device memory"}


@pytest.mark.parametrize("devices", [["--card", "RTX 3060 12GB"], ["--vram", "12G,12G"], ["--vram", "0"]])
def test_the_table_goes_into_eighty_columns(
    capsys: pytest.CaptureFixture[str], moe: str, monkeypatch: pytest.MonkeyPatch, devices: list[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["plan", moe, *devices, "--ram", "64G", "--context", "128k"]) == OK
    lines = capsys.readouterr().out.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("MIB "))
    table = lines[start : lines.index("", start)]
    assert [row.split("  ")[0] for row in table[-2:]] == ["total", "free"]
    assert max(map(len, table)) <= 80


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (("--vram", "24G"), "fits"),
        (("--vram", "5G", "--ram", "32G"), "fits_with_offload"),
        (("--vram", "5G", "--ram", "1G"), "does_not_fit"),
        (("--vram", "0", "--ram", "16G"), "fits"),
        (("--vram", "0", "--ram", "4G"), "does_not_fit"),
        (("--card", "4090"), "fits"),
        (("--vram", "3G,3G"), "fits_with_offload"),
        (("--vram", "6G,6G"), "fits"),
    ],
)
def test_a_verdict_is_an_answer_whatever_it_is(
    capsys: pytest.CaptureFixture[str], dense: str, words: tuple[str, ...], verdict: str
) -> None:
    assert planned(capsys, dense, *words)["verdict"] == verdict


def test_a_card_has_the_memory_of_its_name(capsys: pytest.CaptureFixture[str], dense: str) -> None:
    (device,) = planned(capsys, dense, "--card", "rtx3060-12gb")["devices"]
    assert (device["name"], device["total_mib"], device["free_mib"]) == ("RTX 3060 12GB", 12288, 12288)
    (device,) = planned(capsys, dense, "--card", "rtx3060-12gb", "--vram", "11G")["devices"]
    assert (device["name"], device["total_mib"], device["free_mib"]) == ("RTX 3060 12GB", 12288, 11264)
    first, second = planned(capsys, dense, "--card", "3090", "--card", "RTX 3060 12GB")["devices"]
    assert (first["name"], second["name"]) == ("RTX 3090 24GB", "RTX 3060 12GB")


def test_a_known_card_bounds_the_speed_from_above(capsys: pytest.CaptureFixture[str], dense: str) -> None:
    slow = planned(capsys, dense, "--card", "RTX 3060 12GB")["speed"]["decode_tok_s"]
    fast = planned(capsys, dense, "--card", "4090")["speed"]["decode_tok_s"]
    assert slow["low"] is None and fast["low"] is None
    assert 50 < slow["high"] < 90 < fast["high"] < 250
    assert planned(capsys, dense, "--vram", "12G")["speed"]["decode_tok_s"] == {"low": None, "high": None}


def test_without_a_driver_it_is_planned_for_the_host_alone(
    capsys: pytest.CaptureFixture[str], dense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "measure_devices", lambda: ())
    plan = planned(capsys, dense)
    assert plan["devices"] == []
    assert plan["host"]["free_mib"] > 0
    assert plan["host"]["components"]["weights"]["mib"] > 4000
    assert {"figures": "devices", "source": "none: no driver tells of one"} in plan["sources"]


@pytest.mark.parametrize(("ram", "verdict"), [("64G", "fits"), ("3G", "does_not_fit")])
def test_without_a_device_the_host_s_memory_decides(
    capsys: pytest.CaptureFixture[str], dense: str, ram: str, verdict: str
) -> None:
    plan = planned(capsys, dense, "--vram", "0", "--ram", ram)
    assert plan["verdict"] == verdict
    assert "host memory" in plan["reason"]
    limited = planned(capsys, dense, "--vram", "0", "--ram", "8G")["context_max"]
    assert limited < planned(capsys, dense, "--vram", "0", "--ram", "64G")["context_max"]
    saved = {price["choice"]: price["mib"] for price in plan["prices"]}
    assert saved["kv"] < 0


def test_what_is_free_now_is_measured(
    capsys: pytest.CaptureFixture[str], dense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = (DeviceRoom("NVIDIA GeForce RTX 3060", 12288, 10000),)
    monkeypatch.setattr(gathering, "measure_devices", lambda: rooms)
    plan = planned(capsys, dense)
    assert plan["devices"][0]["free_mib"] == 10000
    assert plan["speed"]["decode_tok_s"]["high"] is not None


def test_what_an_engine_of_ours_holds_is_there_for_a_start_in_its_place(
    capsys: pytest.CaptureFixture[str], dense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"place": "CUDA0", "component": "weights", "measured_mib": 4000.4},
        {"place": "CUDA0", "component": "overhead", "measured_mib": None},
        {"place": "host", "component": "weights", "measured_mib": 300.0},
    ]
    status = json.dumps({"state": "ready", "profile": "other", "memory": rows}).encode()
    monkeypatch.setattr(client, "request", lambda *words, **options: status)
    monkeypatch.setattr(gathering, "measure_devices", lambda: (DeviceRoom("GPU", 12288, 2000),))
    plan = planned(capsys, dense)
    assert plan["devices"][0]["free_mib"] == 6000
    told = {source["figures"]: source["source"] for source in plan["sources"]}
    assert "4000 MiB of other, which runs" in told["free device memory"]


def test_what_a_start_really_took_goes_before_the_formula(
    capsys: pytest.CaptureFixture[str], dense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms = (DeviceRoom("NVIDIA GeForce RTX 3060", 12288, 12000),)
    monkeypatch.setattr(gathering, "measure_devices", lambda: rooms)
    paths = find_paths()
    target = find_target(paths, dense)
    assert target.engine is not None
    shape = gathering.gather(target.profile, target.engine, target.parts).shape
    device = MeasuredDevice("CUDA0", {"compute": 777 * MIB}, beside=333 * MIB)
    start = MeasuredStart(
        engine_key(target.engine), file_identity(dense), shape, False, "2026-11-01T10:00:00Z", (device,), {}
    )
    os.makedirs(os.path.dirname(paths.starts_file))
    StartStore(paths.starts_file).record(start, {})

    plan = planned(capsys, dense)
    parts = plan["devices"][0]["components"]
    assert (parts["compute"]["mib"], parts["compute"]["kind"]) == (777, "learned")
    assert parts["overhead"]["mib"] == 333
    told = {source["figures"]: source["source"] for source in plan["sources"]}
    assert told["what the engine takes"] == "read back from the start of 2026-11-01"
    assert told["context, modules, growth"] == "measured on this machine"

    # Another card has another context; what contradicts the formula is said for other shapes, too.
    other = planned(capsys, dense, "--vram", "12G", "--context", "8k")
    assert other["devices"][0]["components"]["overhead"]["mib"] > 333
    assert any("takes other amounts than the formula knows" in source["source"] for source in other["sources"])


def test_a_profile_brings_its_settings_and_the_command_line_its_context(
    capsys: pytest.CaptureFixture[str], moe: str, tmp_path: Path
) -> None:
    folder = tmp_path / "home" / "config" / "profiles"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(
        f'schema = 1\nmodel = "{moe}"\n[engine]\ndefault = "ik-fork"\n[context]\nsize = 65536\n'
        '[kv]\nk = "q8_0"\nv = "q8_0"\n[speculative]\ntype = "mtp"\n'
    )
    plan = planned(capsys, "mine", "--vram", "24G")
    assert (plan["settings"]["context.size"], plan["settings"]["kv.k"]) == (65536, "q8_0")
    assert plan["engine"] == "ik-fork"
    assert plan["devices"][0]["components"]["draft_kv"]["mib"] > 0
    assert planned(capsys, "mine", "--vram", "24G", "--context", "8k")["settings"]["context.size"] == 8192
    assert planned(capsys, "mine@embedded", "--vram", "24G")["engine"] == "embedded"
    assert planned(capsys, f"{moe}@embedded", "--vram", "24G")["engine"] == "embedded"


def test_a_profile_that_places_its_layers_is_judged_as_it_is(
    capsys: pytest.CaptureFixture[str], moe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home" / "config" / "profiles"
    folder.mkdir(parents=True)
    common = f'schema = 1\nmodel = "{moe}"\n[engine]\ndefault = "embedded"\n[context]\nsize = 8192\n[memory]\n'
    (folder / "placed.toml").write_text(common + "n_cpu_moe = 10\n")
    (folder / "fitted.toml").write_text(common + "fit = true\n")
    placed = planned(capsys, "placed", "--vram", "12G")
    assert placed["verdict"] == "does_not_fit"
    assert placed["settings"]["memory.n_cpu_moe"] == 10
    (change,) = [each for each in placed["changes"] if each["setting"] == "memory.n_cpu_moe"]
    assert planned(capsys, "fitted", "--vram", "12G")["settings"]["memory.n_cpu_moe"] == change["value"] > 10

    # Between what is certain and the upper bound, the engine is asked where it can be.
    least, most = placed["devices"][0]["need_mib"]["low"], placed["devices"][0]["need_mib"]["high"]
    rooms = (DeviceRoom("NVIDIA GeForce RTX 4090", 24576, int(least + most) // 2),)
    monkeypatch.setattr(gathering, "measure_devices", lambda: rooms)
    unclear = planned(capsys, "placed")
    assert unclear["verdict"] == "unclear"
    assert "what the engine takes" in {source["figures"] for source in unclear["sources"]}


def test_an_engine_that_is_not_installed_is_planned_as_its_newest_build(
    capsys: pytest.CaptureFixture[str], dense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    plan = planned(capsys, dense, "--vram", "24G", "--engine", "ik-fork")
    assert (plan["engine"], plan["build"]) == ("ik-fork", None)
    upstream = planned(capsys, dense, "--vram", "24G", "--engine", "upstream")
    fork_mib, upstream_mib = (each["devices"][0]["components"]["compute"]["mib"] for each in (plan, upstream))
    assert fork_mib > upstream_mib  # it reserves logits for the whole batch


def test_people_get_the_verdict_first_in_eighty_columns(
    capsys: pytest.CaptureFixture[str], moe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["plan", moe, "--card", "RTX 3060 12GB", "--context", "128k"]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fits with the experts of ")
    assert lines[1].endswith(" MiB, and the RTX 3060 12GB has 12 288 MiB free")
    assert any(line.startswith("MIB ") and "RTX 3060 12GB" in line for line in lines)


def test_the_matrix_shows_what_lies_beside_a_file(
    capsys: pytest.CaptureFixture[str], moe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["plan", moe, "--vram", "24G", "--matrix"]) == OK
    head, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head.split() == ["QUANT", "GB", "KV", "8k", "16k", "32k", "64k", "128k", "256k"]
    assert [row.split()[0] for row in rows[::3]] == ["Q2_K", "Q4_K_M", "Q8_0"]
    assert max(map(len, [head, *rows])) <= 80
    assert "yes" in rows[0] and "moe" in rows[-1]


def test_the_matrix_as_json_has_one_object_a_cell(capsys: pytest.CaptureFixture[str], dense: str) -> None:
    document = planned(capsys, dense, "--vram", "8G", "--matrix", "--context", "16k")
    assert [(cell["quant"], cell["kv"], cell["context"]) for cell in document["matrix"]] == [
        ("Q4_K_M", kv, 16384) for kv in ("f16", "q8_0", "q4_0")
    ]
    single = planned(capsys, dense, "--vram", "8G", "--context", "16k")
    assert document["matrix"][0]["verdict"] == single["verdict"]
    assert document["matrix"][0]["need_mib"] == [single["devices"][0]["need_mib"]]


@pytest.fixture
def hub(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    names = [f"Qwen3.6-35B-A3B-{quant}.gguf" for quant in ("Q2_K", "Q4_K_M", "Q8_0")]
    files = {name: str(models / name) for name in names} | {"mmproj-F16.gguf": str(models / names[0])}
    with serving(StubHub({"org/Qwen3.6-35B-A3B-GGUF": files})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def test_a_repository_is_planned_as_the_file_would_be(
    capsys: pytest.CaptureFixture[str], moe: str, hub: StubHub
) -> None:
    remote = planned(capsys, "hf:org/Qwen3.6-35B-A3B-GGUF:q4_k_m", "--vram", "12G")
    local = planned(capsys, moe, "--vram", "12G")
    assert remote["model"] == "hf:org/Qwen3.6-35B-A3B-GGUF/Qwen3.6-35B-A3B-Q4_K_M.gguf"
    assert [file["file"] for file in remote["beside"]] == ["mmproj-F16.gguf"]
    assert {key: remote[key] for key in ("verdict", "devices", "settings")} == {
        key: local[key] for key in ("verdict", "devices", "settings")
    }


def test_the_matrix_of_a_repository_fetches_one_vocabulary(
    capsys: pytest.CaptureFixture[str], models: Path, hub: StubHub
) -> None:
    document = planned(capsys, "hf:org/Qwen3.6-35B-A3B-GGUF", "--card", "4090", "--matrix", "--context", "32k")
    local = planned(capsys, str(models / "Qwen3.6-35B-A3B-Q8_0.gguf"), "--card", "4090", "--matrix", "--context", "32k")
    assert document["matrix"] == local["matrix"]
    assert hub.sent < 1.3 * read_gguf(str(models / "Qwen3.6-35B-A3B-Q8_0.gguf")).data_offset


def test_the_matrix_of_a_repository_has_all_its_quantisations(capsys: pytest.CaptureFixture[str], hub: StubHub) -> None:
    hub.faults["Qwen3.6-35B-A3B-Q2_K.gguf"] = "gone"
    words = ("plan", "hf:org/Qwen3.6-35B-A3B-GGUF", "--card", "4090", "--matrix", "--context", "32k", "--json")
    assert cli.main(list(words)) == OK
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert "left out: hf:org/Qwen3.6-35B-A3B-GGUF/Qwen3.6-35B-A3B-Q2_K.gguf: not there" in captured.err
    assert list(dict.fromkeys(cell["quant"] for cell in document["matrix"])) == ["Q4_K_M", "Q8_0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing.gguf",), "there is no file"),
        (("no-such-profile",), "no-such-profile"),
        (("MODEL", "--vram", "12"), "has no unit"),
        (("MODEL", "--vram", "12G,x"), "no amount of memory"),
        (("MODEL", "--ram", "much"), "no amount of memory"),
        (("MODEL", "--context", "0"), "no number of tokens"),
        (("MODEL", "--card", "3060"), "RTX 3060 8GB"),
        (("MODEL", "--card", "4090", "--card", "3090", "--vram", "1G,1G,1G"), "names 3 devices and --card 2"),
        (("MODEL", "--engine", "nowhere"), "there is no engine `nowhere`"),
        (("hf:one",), "names no repository"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    capsys: pytest.CaptureFixture[str], dense: str, words: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, *(dense if word == "MODEL" else word for word in words))


def test_a_file_that_is_no_model_says_what_is_wrong(capsys: pytest.CaptureFixture[str], models: Path) -> None:
    assert cli.main(["plan", str(models / "Qwen3.6-35B-A3B-Q6_K.gguf")]) == 1
    assert "not a GGUF file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([Field("general.architecture", "string", "clip")], "the model is a projector"),
        (
            [Field("general.architecture", "string", "llama"), Field("general.type", "string", "adapter")],
            "the model is a LoRA adapter",
        ),
    ],
)
def test_a_file_that_belongs_to_a_model_is_not_planned_as_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, fields: list[Field], said: str
) -> None:
    path = str(tmp_path / "beside.gguf")
    write_gguf(path, fields, [TensorData("mm.0.weight", (32,), "f32", zeros(32))])
    assert said in refused(capsys, path, "--vram", "8G")


def test_a_header_without_what_a_plan_needs_names_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(tmp_path / "odd.gguf")
    fields = [Field("general.architecture", "string", "llama"), Field("llama.block_count", "u32", 2)]
    write_gguf(path, fields, [TensorData("blk.0.attn_q.weight", (32,), "f32", zeros(32))])
    assert cli.main(["plan", path, "--vram", "8G"]) == 1
    assert "embedding_length" in capsys.readouterr().err
