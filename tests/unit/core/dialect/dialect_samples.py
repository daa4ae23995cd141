"""Writes docs/dialects.md and the golden files of the dialects: `python -m tests.unit.core.dialect.dialect_samples`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.dialect.render import Rendered, UnsupportedError, render
from orchestrator.core.profile.settings import SETTINGS, Setting, Value
from tests.support import FIXTURES, ROOT
from tests.unit.core.dialect.fixture_builds import BUILDS, build, flags_of, profile

DOCUMENT = ROOT / "docs" / "dialects.md"
GOLDEN = FIXTURES / "golden"

PROFILES: Mapping[str, dict[str, Value]] = {
    "empty": {},
    "recipe-12gb": {
        "context.size": 131072,
        "context.parallel": 1,
        "kv.k": "q8_0",
        "kv.v": "q8_0",
        "memory.fit": True,
        "memory.fit_margin": 1664,
        "speculative.type": "mtp",
        "speculative.draft_max": 3,
        "speculative.draft_p_min": 0.75,
    },
    "placed-by-hand": {
        "context.size": 32768,
        "batch.size": 2048,
        "batch.ubatch": 1024,
        "cpu.threads": 8,
        "memory.fit": False,
        "memory.gpu_layers": "all",
        "memory.n_cpu_moe": 20,
        "memory.mmap": False,
        "memory.mlock": True,
        "kv.k": "q8_0",
        "kv.v": "q4_0",
        "attention.flash": True,
        "sampling.temperature": 0.6,
        "sampling.top_k": 20,
    },
    "draft-model": {
        "speculative.type": "draft",
        "speculative.draft_model": "/models/draft.gguf",
        "speculative.draft_max": 8,
        "speculative.draft_min": 2,
        "speculative.draft_gpu_layers": "all",
        "speculative.kv_k": "q8_0",
    },
    "ngrams": {
        "speculative.type": "ngram-mod",
        "speculative.draft_max": 64,
        "speculative.draft_min": 2,
        "speculative.ngram_n": 24,
    },
    "serving": {
        "context.parallel": 4,
        "context.unified_kv": True,
        "context.shift": True,
        "chat.jinja": True,
        "chat.template_kwargs": {"enable_thinking": False},
        "reasoning.format": "deepseek",
        "reasoning.mode": "off",
        "cache.prompt_ram_mib": 4096,
        "server.warmup": False,
        "multimodal.mmproj": "/models/mmproj.gguf",
        "multimodal.offload": False,
    },
    "stretched": {
        "context.size": 524288,
        "context.parallel": 1,
        "context.checkpoint_min_step": 128,
        "rope.scaling": "yarn",
        "rope.scale": 2.0,
        "rope.original_context": 262144,
        "override_kv.qwen35moe.context_length": 524288,
        "override_kv.general.name": "stretched",
        "lora.adapters": ("/models/a.gguf", "/models/b.gguf"),
        "lora.scales": (1.0, 0.5),
        "multimodal.image_min_tokens": 1024,
        "sampling.frequency_penalty": 0.0,
    },
    "mtp-drafter": {
        "context.parallel": 1,
        "speculative.type": "mtp",
        "speculative.draft_model": "/models/drafter.gguf",
        "speculative.draft_max": 2,
        "speculative.draft_gpu_layers": "all",
    },
    "chain": {
        "context.parallel": 1,
        "speculative.type": ("mtp", "ngram-mod"),
        "speculative.draft_max": 4,
        "speculative.ngram_n": 16,
    },
    "embeddings": {
        "context.size": 2048,
        "context.parallel": 1,
        "batch.ubatch": 2048,
        "server.embeddings": True,
        "server.pooling": "last",
    },
    "everything-else": {
        "attention.mla": 1,
        "memory.repack": True,
        "memory.defer_experts": True,
        "memory.fit": True,
        "memory.fit_min_context": 8192,
        "memory.tensor_overrides": ("exps=CPU",),
        "kv.k": "q6_0",
        "reasoning.effort": "low",
        "server.reranking": True,
    },
}

_WORDS: Mapping[str, tuple[Value, ...]] = {
    "context.size": (0, 32768),
    "kv.k": ("q8_0", "q6_0"),
    "kv.v": ("q8_0", "q6_0"),
    "memory.fit_margin": (1664, (512, 1024)),
    "memory.gpu_layers": (20, "all", "auto"),
    "memory.tensor_overrides": (("exps=CPU",),),
    "memory.tensor_split": ((3.0, 1.0),),
    "memory.devices": (("CUDA0", "CUDA1"),),
    "memory.rpc": (("127.0.0.1:50052",),),
    "speculative.draft_min": (1,),
    "speculative.kv_k": ("q8_0",),
    "speculative.kv_v": ("q8_0",),
    "speculative.draft_gpu_layers": (20, "all"),
    "speculative.draft_devices": (("CUDA0",),),
    "lora.adapters": (("/m/a.gguf", "/m/b.gguf"),),
    "lora.scales": ((0.5,),),
    "sampling.samplers": (("top_k", "temperature"),),
    "multimodal.device": ("CUDA0",),
    "reasoning.budget_message": ("Time is up.",),
    "cpu.threads": (8, "auto"),
    "cpu.threads_batch": (8, "auto"),
    "chat.template": ("chatml",),
    "chat.template_kwargs": ({"enable_thinking": False},),
    "reasoning.budget": (0, 500),
    "reasoning.effort": ("low",),
}

_TYPE_FOR: Mapping[str, str] = {"draft_max": "mtp", "draft_min": "mtp", "draft_p_min": "mtp", "autotune": "mtp"}

_HEAD = """\
# Dialects

What each neutral setting becomes on the command line of seven builds. Written by
`python -m tests.unit.core.dialect.dialect_samples` from the tables in `orchestrator/core/dialect/tables.py` and
`core/dialect/speculative.py`; a test fails when this file is not what the tables say.

- **—** the build cannot express it: rendering stops with an error that names the setting, the build and the nearest
  thing that the build can do.
- *(none)* nothing is passed, because the build does it anyway or another setting's flag implies it;
  `orch profile render` shows a note.

The columns are recorded builds (tests/unit/core/dialect/fixture_builds.py says where each comes from). Rendering does
not ask for the name of an engine, only for what a build's `--help` and a probe say: the recorded b6123 to b10566 lack
RPC.

"""


def rendered(on: str, settings: Mapping[str, Value], caps: Capabilities | None = None) -> Rendered:
    return render(
        profile(dict(settings), aliases=("qwen-fast",)),
        caps or build(on),
        build=on,
        model="/models/qwen.gguf",
        host="127.0.0.1",
        port="18200",
        api_key_file="/run/orch/engine.key",
    )


def golden(name: str) -> str:
    """One profile on every recorded build: the command line by argument, the notes, or the error."""
    return "\n".join(f"== {on}\n" + "".join(f"{line}\n" for line in _outcome(on, PROFILES[name])) for on in BUILDS)


def document() -> str:
    rows = [_row(["setting", *BUILDS]), _row(["---"] * (len(BUILDS) + 1))]
    for setting in SETTINGS:
        for context, value in _samples(setting):
            shown = f"`{setting.path} = {_toml(value)}`" + (f" with {context}" if context != "none" else "")
            rows.append(_row([shown, *(_cell(on, setting, context, value) for on in BUILDS)]))

    owned = [_row(["orch's own", *BUILDS]), _row(["---"] * (len(BUILDS) + 1))]
    lines = [_units(rendered(on, {}).argv, build(on)) for on in BUILDS]
    owned.append(_row(["an empty profile", *("<br>".join(f"`{unit}`" for unit in line) for line in lines)]))
    return _HEAD + "\n".join(rows) + "\n\n## An empty profile\n\n" + "\n".join(owned) + "\n"


def _outcome(on: str, settings: Mapping[str, Value]) -> Iterator[str]:
    try:
        result = rendered(on, settings)
    except UnsupportedError as error:
        yield f"error: {error.message}"
        yield from (f"  {line}" for line in error.details)
        yield f"hint: {error.hint}"
        return

    yield from _units(result.argv, build(on))
    yield from (f"# {note}" for note in result.notes)


def _units(argv: tuple[str, ...], caps: Capabilities) -> list[str]:
    """Each flag with its value."""
    units = []
    words = iter(argv)
    for word in words:
        flag = caps.find(word)
        if word == "--lora-scaled" and caps.find("--fit-target") is None:
            units.append(f"{word} {next(words)} {next(words)}")
            continue

        units.append(f"{word} {next(words)}" if flag is not None and flag.value else word)

    return units


def _samples(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Values to show, each with the type of speculation that it needs."""
    if setting.path == "speculative.type":
        yield from (("none", choice) for choice in setting.choices or () if choice != "none")
        yield "none", ("ngram-mod", "mtp")
        return

    for value in _WORDS.get(setting.path) or _by_type(setting):
        if setting.table != "speculative":
            yield "none", value
        elif setting.key.startswith("ngram_"):
            yield "ngram-map-k", value
        else:
            yield _TYPE_FOR.get(setting.key, "draft"), value
            if setting.key in ("draft_max", "draft_min"):
                yield "ngram-mod", value

            if setting.key == "draft_model":
                yield "mtp", value


def _by_type(setting: Setting) -> tuple[Value, ...]:
    if setting.choices is not None:
        return (*((True, False) if "bool" in setting.types else ()), *setting.choices)

    number = int(min(max(8, setting.minimum or 0), setting.maximum or 8))
    samples: dict[str, tuple[Value, ...]] = {
        "bool": (True, False),
        "int": (number,),
        "float": (0.5,),
        "path": ("/m/x.gguf",),
    }
    return samples[setting.types[0]]


def _cell(on: str, setting: Setting, context: str, value: Value) -> str:
    base: dict[str, Value] = {} if context == "none" else {"speculative.type": context}
    if context == "draft" and setting.key != "draft_model":
        base["speculative.draft_model"] = "/m/x.gguf"

    if setting.path == "lora.scales":
        base["lora.adapters"] = ("/m/a.gguf",)

    try:
        result = rendered(on, {**base, setting.path: value})
    except UnsupportedError:
        return "—"

    flags = flags_of(setting.path, build(on))
    units = [unit for unit in _units(result.argv, build(on)) if unit.partition(" ")[0] in flags]
    return "<br>".join(f"`{unit}`" for unit in units) or "*(none)*"


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()

    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(part) for part in value) + "]"

    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {str(part).lower()}" for key, part in value.items()) + " }"

    return f'"{value}"' if isinstance(value, str) else str(value)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    DOCUMENT.write_text(document())
    GOLDEN.mkdir(exist_ok=True)
    for name in PROFILES:
        golden_file(name).write_text(golden(name))


def golden_file(name: str) -> Path:
    return GOLDEN / f"argv-{name}.txt"


if __name__ == "__main__":
    main()
