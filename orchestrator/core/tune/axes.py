"""Which settings of a profile are worth trying on this machine. Pure.

In the order in which they are searched: what speculates and how far, the micro-batch, what changes answers (only where
the user allows it), one memory axis, threads and the CPUs that they run on, the fork's kernels for experts, and last
below which probability a drafter stops. A memory axis is the margin of a fit or the layers of experts on the host,
never both: each moves the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.dialect.capabilities import Kind
from orchestrator.core.profile.settings import Value
from orchestrator.core.profile.speculation import speculation_types
from orchestrator.core.tune.space import Axis, AxisChoice, AxisKind, Space

ALLOWED = ("kv", "context")
"""Axes that change what is answered, or how long a conversation may be."""

MTP_DRAFTS = (1, 2, 3, 4, 6)
NGRAM_DRAFTS = (4, 8, 16)
UBATCHES = (128, 256, 512, 1024, 2048)
P_MINS = (0.0, 0.4, 0.6, 0.75)
MARGINS_MIB = (2048, 1536, 1024, 768, 512, 384, 256)
KV_PAIRS = ("f16", "q8_0")
NGRAM = "ngram-simple"
PLANNED = ("ubatch", "kv", "context", "margin", "n_cpu_moe")
"""Axes whose memory the planner knows, beside that of drafts."""

EXPERT_STEPS = (4, 2, 1, 0, -1, -2, -4)
"""Layers of experts on the host around those of the profile; fewer fill the device more."""


@dataclass(frozen=True, slots=True)
class TuneFacts:
    """What of the machine, the model and the build decides which axes there are.

    :param settings: of the profile on its engine
    :param mtp: whether the model has blocks that draft
    :param expert_layers: of the model; 0 for a dense one
    :param pins: values of `cpu.pin` that leave out CPUs of this machine, with how many stay
    :param host_weights: whether some weights are, or may be, in host memory
    """

    settings: Mapping[str, Value]
    kind: Kind
    mtp: bool
    expert_layers: int
    devices: int
    cores: int
    cpus: int
    host_weights: bool
    context_tokens: int
    pins: Mapping[str, int] = field(default_factory=dict)


def space_of(facts: TuneFacts, allowed: Sequence[str]) -> Space:
    """Return the axes; those with one choice are left out."""
    axes = [_drafts(facts), _ubatch(facts)]
    if "kv" in allowed:
        axes.append(_kv(facts))

    if "context" in allowed:
        axes.append(_context(facts))

    axes += [*_memory(facts), *_host(facts), *_fork(facts), *_p_min(facts)]
    return Space(tuple(axis for axis in axes if len(axis.choices) > 1))


def _drafts(facts: TuneFacts) -> Axis:
    """Return the axis of drafts: none, and so many with the type that the profile has or that the model offers."""
    settings = facts.settings
    types = speculation_types(settings)
    now = settings.get("speculative.draft_max")
    chain = types if types != ("none",) else ("mtp",) if facts.mtp else (NGRAM,)
    numbers = MTP_DRAFTS if "mtp" in chain or "draft" in chain else NGRAM_DRAFTS
    if types != ("none",) and isinstance(now, int):
        numbers = tuple(sorted({*numbers, now}))

    written = _toml(chain[0] if len(chain) == 1 else chain)
    off = AxisChoice("none", (("speculative.type", '"none"'),), ("p_min",))
    choices = [off]
    current = 0
    for number in numbers:
        if types != ("none",) and (number == now or (now is None and number == 3 and "mtp" in chain)):
            current = len(choices)

        # Upstream says the length of an n-gram's draft in words of its own.
        key = "speculative.ngram_m" if chain == (NGRAM,) and facts.kind != "ik" else "speculative.draft_max"
        pairs = (("speculative.type", written), (key, str(number)))
        choices.append(AxisChoice(f"{number} {'+'.join(chain)}", pairs))

    if types != ("none",) and current == 0:  # as many as the engine takes by itself
        choices.insert(1, AxisChoice(f"{'+'.join(chain)}, the engine's number"))
        current = 1

    return Axis("drafts", "drafts", tuple(choices), current, planned=True)


def _ubatch(facts: TuneFacts) -> Axis:
    batch, now = _int(facts, "batch.size", 2048), _int(facts, "batch.ubatch", 512)
    numbers = sorted({*(each for each in UBATCHES if each <= facts.context_tokens), min(now, batch)})

    def settings(number: int) -> tuple[tuple[str, str], ...]:
        larger = (("batch.size", str(number)),) if number > batch else ()
        return (("batch.ubatch", str(number)), *larger)

    return _axis("ubatch", "speed", [(str(each), settings(each)) for each in numbers], numbers.index(min(now, batch)))


def _kv(facts: TuneFacts) -> Axis:
    k, v = (str(facts.settings.get(key, "f16")) for key in ("kv.k", "kv.v"))
    pairs = list(dict.fromkeys([*((each, each) for each in KV_PAIRS), (k, v)]))
    rows = [(a if a == b else f"{a}/{b}", (("kv.k", _toml(a)), ("kv.v", _toml(b)))) for a, b in pairs]
    return _axis("kv", "quality", rows, pairs.index((k, v)))


def _context(facts: TuneFacts) -> Axis:
    now = facts.context_tokens
    numbers = sorted({now, *(size for size in (now * 3 // 4 // 256 * 256, now // 2 // 256 * 256) if size >= 4096)})
    rows = [(str(each), (("context.size", str(each)),)) for each in numbers]
    return _axis("context", "quality", rows, numbers.index(now))


def _memory(facts: TuneFacts) -> Iterator[Axis]:
    """Yield the one axis that says how full a device is, emptiest first."""
    settings = facts.settings
    if not facts.devices:
        return

    margin = settings.get("memory.fit_margin", 1024)
    if settings.get("memory.fit") is not False and isinstance(margin, int) and facts.devices == 1:
        numbers = sorted({*MARGINS_MIB, margin}, reverse=True)
        rows = [(f"{each} MiB", (("memory.fit_margin", str(each)),)) for each in numbers]
        yield _axis("margin", "memory", rows, numbers.index(margin))
        return

    layers = settings.get("memory.n_cpu_moe")
    if isinstance(layers, int) and facts.expert_layers:
        around = {layers + step for step in EXPERT_STEPS}
        counts = sorted({layers, *(each for each in around if 0 <= each <= facts.expert_layers)}, reverse=True)
        rows = [(str(each), (("memory.n_cpu_moe", str(each)),)) for each in counts]
        yield _axis("n_cpu_moe", "memory", rows, counts.index(layers))


def _host(facts: TuneFacts) -> Iterator[Axis]:
    """Yield threads of generating, threads of prompts and their CPUs, where weights are in host memory."""
    if not facts.host_weights or facts.cpus < 2:
        return

    for name, key in (("threads", "cpu.threads"), ("threads_batch", "cpu.threads_batch")):
        now = facts.settings.get(key, "auto")
        numbers = {facts.cores // 2, facts.cores - 1, facts.cores, facts.cpus} - {0}
        values = [*sorted(numbers | ({now} if isinstance(now, int) else set())), *([now] if now == "auto" else [])]
        yield _axis(name, "speed", [(str(each), ((key, _toml(each)),)) for each in values], values.index(now))

    yield _pin(facts)


def _pin(facts: TuneFacts) -> Axis:
    """Return the axis of CPUs: all, or some of them with a thread for each, whatever the axes of threads have."""
    now = str(facts.settings.get("cpu.pin", "none"))
    choices = []
    for pin in ("one_per_core", "none", "fast_cores"):  # each way of pinning is one step from none
        if pin not in ("none", now, *facts.pins):
            continue

        pairs = [("cpu.pin", _toml(pin))]
        if pin in facts.pins:
            count = str(facts.pins[pin])
            written = [key for key in ("cpu.threads", "cpu.threads_batch") if isinstance(facts.settings.get(key), int)]
            pairs += [(key, count) for key in written]

        mutes = ("threads", "threads_batch") if pin not in ("none", now) else ()
        choices.append(AxisChoice(pin, tuple(pairs), mutes))

    return Axis("pin", "speed", tuple(choices), [choice.label for choice in choices].index(now))


def _fork(facts: TuneFacts) -> Iterator[Axis]:
    """Yield the fork's kernels for experts."""
    if facts.kind != "ik" or not facts.expert_layers:
        return

    for name in ("fused_moe", "merge_experts"):
        now = facts.settings.get(f"memory.{name}")
        rows: list[tuple[str, tuple[tuple[str, str], ...]]] = [
            (_toml(each), ((f"memory.{name}", _toml(each)),)) for each in (False, True)
        ]
        if not isinstance(now, bool):
            rows.insert(0, ("the engine's", ()))

        yield _axis(name, "speed", rows, int(now) if isinstance(now, bool) else 0)


def _p_min(facts: TuneFacts) -> Iterator[Axis]:
    types = speculation_types(facts.settings)
    if not facts.mtp and not {"mtp", "draft"} & set(types):
        return

    now = facts.settings.get("speculative.draft_p_min")
    own = isinstance(now, int | float) and not isinstance(now, bool)
    numbers = sorted({*P_MINS, *([float(str(now))] if own else [])})
    rows: list[tuple[str, tuple[tuple[str, str], ...]]] = [
        (f"{each:g}", (("speculative.draft_p_min", f"{each}"),)) for each in numbers
    ]
    if not own:
        rows.insert(0, ("the engine's", ()))

    yield _axis("p_min", "speed", rows, numbers.index(float(str(now))) if own else 0)


def _axis(name: str, kind: AxisKind, rows: Sequence[tuple[str, tuple[tuple[str, str], ...]]], current: int) -> Axis:
    return Axis(name, kind, tuple(AxisChoice(label, settings) for label, settings in rows), current, name in PLANNED)


def _int(facts: TuneFacts, key: str, absent: int) -> int:
    value = facts.settings.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else absent


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()

    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"

    return f'"{value}"' if isinstance(value, str) else str(value)
