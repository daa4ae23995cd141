"""The page of `GET /metrics`: what is counted, what is, and what the engine says of itself.

Names follow Prometheus' rules: `orch_`, base units, the unit last. `docs/metrics.md` has the same table, which a test
compares. Importing `prometheus_client` costs 72 ms of CPU, so that happens in a thread, when somebody first asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from orchestrator import __version__
from orchestrator.api.top_frames import GpuFigures, HostFigures
from orchestrator.core.energy.sharing import ModelEnergy, Pair
from orchestrator.core.fleet.state_summary import StateName
from orchestrator.core.measure.engine_metrics import Family
from orchestrator.daemon.telemetry.totals import Histogram, Totals

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Kind = Literal["gauge", "counter", "histogram"]
_PAIR = ("profile", "engine")
_GPU = ("gpu", "uuid")


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric that orch exports."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


SPECS = (
    Spec("orch_info", "gauge", ("version",), "The running orch."),
    Spec("orch_instance_info", "gauge", (*_PAIR, "build"), "What runs, or is on its way."),
    Spec("orch_ready", "gauge", (), "Whether an instance is ready."),
    Spec("orch_state", "gauge", ("state",), "1 for the state that is, 0 for the others."),
    Spec("orch_degraded", "gauge", (*_PAIR, "kind"), "1 for each thing that the running engine goes on without."),
    Spec("orch_requests_in_flight", "gauge", (), "Requests that an instance is answering."),
    Spec("orch_requests_queued", "gauge", (), "Requests that wait for an instance."),
    Spec("orch_requests_total", "counter", ("outcome", *_PAIR), "Requests that ended, by outcome."),
    Spec("orch_requests_replayed_total", "counter", (), "Requests sent again because an engine died."),
    Spec("orch_client_requests_total", "counter", ("outcome", "client"), "Requests that ended, by name of the key."),
    Spec("orch_client_prompt_tokens_total", "counter", ("client",), "Prompt tokens that were computed, by key."),
    Spec("orch_client_output_tokens_total", "counter", ("client",), "Tokens that were generated, by key."),
    Spec("orch_keys_refused_total", "counter", (), "Requests with a wrong key, or without one."),
    Spec("orch_requests_limited_total", "counter", (), "Requests refused since their key had reached a limit."),
    Spec("orch_request_duration_seconds", "histogram", _PAIR, "From a request's arrival to its answer's end."),
    Spec("orch_time_to_first_token_seconds", "histogram", _PAIR, "From arrival to the first token; streams alone."),
    Spec("orch_time_per_output_token_seconds", "histogram", _PAIR, "Time of one token after the first, by request."),
    Spec("orch_queue_wait_seconds", "histogram", _PAIR, "How long a request waited for an instance."),
    Spec("orch_load_duration_seconds", "histogram", _PAIR, "From an instance's start until it was ready."),
    Spec("orch_prompt_tokens_total", "counter", _PAIR, "Prompt tokens that were computed."),
    Spec("orch_prompt_seconds_total", "counter", _PAIR, "The engine's time for them."),
    Spec("orch_output_tokens_total", "counter", _PAIR, "Tokens that were generated."),
    Spec("orch_output_seconds_total", "counter", _PAIR, "The engine's time for them."),
    Spec("orch_draft_tokens_total", "counter", _PAIR, "Tokens that were drafted."),
    Spec("orch_draft_tokens_accepted_total", "counter", _PAIR, "Drafted tokens that were accepted."),
    Spec("orch_decode_tokens_per_second", "gauge", _PAIR, "Tokens generated right now, all requests together."),
    Spec("orch_prompt_tokens_per_second", "gauge", _PAIR, "Prompt tokens computed right now."),
    Spec("orch_switches_total", "counter", ("result",), "Switches that ended: ok, rolled_back or failed."),
    Spec("orch_out_of_memory_retries_total", "counter", (), "Starts that followed a failure for lack of memory."),
    Spec("orch_gpu_info", "gauge", (*_GPU, "name", "vendor"), "A device."),
    Spec("orch_gpu_memory_used_bytes", "gauge", _GPU, "Device memory that is taken, by anybody."),
    Spec("orch_gpu_memory_total_bytes", "gauge", _GPU, "Device memory that there is."),
    Spec("orch_gpu_memory_engine_bytes", "gauge", _GPU, "Device memory that orch's engines hold."),
    Spec("orch_gpu_utilization_ratio", "gauge", _GPU, "Share of time in which the device was at work."),
    Spec("orch_gpu_power_watts", "gauge", _GPU, "Power that the device draws."),
    Spec("orch_gpu_temperature_celsius", "gauge", _GPU, "The device's temperature."),
    Spec("orch_host_memory_total_bytes", "gauge", (), "Host memory that there is."),
    Spec("orch_host_memory_available_bytes", "gauge", (), "Host memory that can be had without swapping."),
    Spec("orch_host_swap_used_bytes", "gauge", (), "Swap that is in use."),
    Spec("orch_engine_resident_memory_bytes", "gauge", (), "Host memory of the engines' processes."),
    Spec("orch_resident_state", "gauge", (*_PAIR, "state"), "1 for the state of a loaded profile, 0 for the others."),
    Spec("orch_resident_focus", "gauge", _PAIR, "1 for the one that requests without a known model go to."),
    Spec("orch_resident_pinned", "gauge", _PAIR, "Whether it is never unloaded to make room."),
    Spec("orch_resident_requests_in_flight", "gauge", _PAIR, "Requests that it is answering."),
    Spec("orch_resident_requests_queued", "gauge", _PAIR, "Requests that wait for it."),
    Spec("orch_resident_gpu_memory_bytes", "gauge", (*_PAIR, *_GPU), "Device memory that it holds."),
    Spec("orch_resident_host_memory_bytes", "gauge", _PAIR, "Host memory of its process."),
    Spec("orch_energy_joules_total", "counter", (*_PAIR, "use"), "Energy of its devices, with requests and without."),
    Spec("orch_history_dropped_total", "counter", (), "Rows that could not be written to the history."),
)


RESIDENT_STATES = (*get_args(StateName), "unloaded")


@dataclass(frozen=True, slots=True)
class ResidentGauges:
    """What is known of one loaded profile.

    :param state: one of `RESIDENT_STATES`
    :param gpus_mib: by the index and the uuid of a device
    :param engine: what its instance says of itself, while it serves
    """

    pair: Pair
    state: str
    focus: bool = False
    pinned: bool = False
    build: str | None = None
    in_flight: int = 0
    queued: int = 0
    decode_tok_s: float | None = None
    prompt_tok_s: float | None = None
    gpus_mib: Mapping[tuple[str, str], int] = field(default_factory=dict)
    host_mib: int | None = None
    engine: Sequence[Family] = ()
    degraded: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The gauges of this moment; None where nobody knows. What is about one instance is about the one in focus.

    :param pair: profile and engine of what runs or is on its way
    :param engine: what the instance that serves says of itself
    :param degraded: kinds of what it goes on without
    :param residents: all loaded profiles, that in focus as well
    :param energy: since the daemon began
    """

    state: StateName
    pair: Pair | None = None
    build: str | None = None
    in_flight: int = 0
    queued: int = 0
    decode_tok_s: float | None = None
    prompt_tok_s: float | None = None
    gpus: Sequence[GpuFigures] = ()
    host: HostFigures | None = None
    engine: Sequence[Family] = field(default_factory=tuple)
    history_dropped: int = 0
    degraded: Sequence[str] = ()
    residents: Sequence[ResidentGauges] = ()
    energy: Mapping[Pair, ModelEnergy] = field(default_factory=dict)

    @property
    def beside(self) -> Sequence[ResidentGauges]:
        """The residents that are loaded or on their way beside the one in focus."""
        return [each for each in self.residents if not each.focus and each.state not in ("stopped", "unloaded")]


Rows = Mapping[str, Iterable[tuple[tuple[str, ...], float | Histogram | None]]]
"""Name to label values and value; a None is left out."""


class Page:
    """A collector for one scrape: no second copy of the state is kept."""

    def __init__(self, snapshot: Snapshot, totals: Totals) -> None:
        self._snapshot = snapshot
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        rows = {**rows_of_totals(self._totals), **rows_of_snapshot(self._snapshot)}
        for spec in SPECS:
            if spec.kind == "histogram":
                histogram = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
                for labels, value in rows[spec.name]:
                    if isinstance(value, Histogram) and any(value.counts):
                        histogram.add_metric(labels, _cumulative(value), value.total)

                yield histogram
                continue

            kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
            family = kind(spec.name, spec.help, labels=spec.labels)
            for labels, value in rows[spec.name]:
                if isinstance(value, int | float):
                    family.add_metric(labels, value)

            yield family

        yield from _passed_on(pages_of(self._snapshot))


def load_library() -> None:
    """Import what `render` needs; blocks the first time."""
    import prometheus_client  # noqa: F401


def render(snapshot: Snapshot, totals: Totals) -> bytes:
    """Return the page in Prometheus' text format 0.0.4."""
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Page(snapshot, totals))
    return generate_latest(registry)


def rows_of_totals(totals: Totals) -> Rows:
    pairs = totals.pairs.items()
    clients = totals.clients.items()
    return {
        "orch_client_requests_total": [
            ((outcome, name), count) for name, each in clients for outcome, count in sorted(each.outcomes.items())
        ],
        "orch_client_prompt_tokens_total": [((name,), each.prompt_tokens) for name, each in clients],
        "orch_client_output_tokens_total": [((name,), each.output_tokens) for name, each in clients],
        "orch_keys_refused_total": [((), totals.keys_refused)],
        "orch_requests_limited_total": [((), totals.limited)],
        "orch_requests_total": [
            ((outcome, *pair), count) for pair, each in pairs for outcome, count in sorted(each.outcomes.items())
        ],
        "orch_requests_replayed_total": [((), totals.replayed)],
        "orch_request_duration_seconds": [(pair, each.request_s) for pair, each in pairs],
        "orch_time_to_first_token_seconds": [(pair, each.first_token_s) for pair, each in pairs],
        "orch_time_per_output_token_seconds": [(pair, each.token_s) for pair, each in pairs],
        "orch_queue_wait_seconds": [(pair, each.queue_s) for pair, each in pairs],
        "orch_load_duration_seconds": [(pair, each.load_s) for pair, each in pairs],
        "orch_prompt_tokens_total": [(pair, each.prompt_tokens) for pair, each in pairs],
        "orch_prompt_seconds_total": [(pair, each.prompt_s) for pair, each in pairs],
        "orch_output_tokens_total": [(pair, each.output_tokens) for pair, each in pairs],
        "orch_output_seconds_total": [(pair, each.output_s) for pair, each in pairs],
        "orch_draft_tokens_total": [(pair, each.draft_tokens) for pair, each in pairs],
        "orch_draft_tokens_accepted_total": [(pair, each.draft_accepted) for pair, each in pairs],
        "orch_switches_total": [((result,), count) for result, count in sorted(totals.switches.items())],
        "orch_out_of_memory_retries_total": [((), totals.memory_retries)],
    }


def rows_of_snapshot(now: Snapshot) -> Rows:
    host, gpus = now.host, [((str(each["index"]), each["uuid"]), each) for each in now.gpus]
    running = [now.pair] if now.pair is not None else []
    beside, residents = now.beside, now.residents
    return {
        "orch_info": [((__version__,), 1)],
        "orch_instance_info": [((*pair, now.build or ""), 1) for pair in running]
        + [((*each.pair, each.build or ""), 1) for each in beside],
        "orch_ready": [((), int(now.state == "ready"))],
        "orch_state": [((name,), int(name == now.state)) for name in get_args(StateName)],
        "orch_degraded": [((*pair, kind), 1) for pair in running for kind in now.degraded]
        + [((*each.pair, kind), 1) for each in beside for kind in each.degraded],
        "orch_requests_in_flight": [((), now.in_flight)],
        "orch_requests_queued": [((), now.queued)],
        "orch_decode_tokens_per_second": [(pair, now.decode_tok_s) for pair in running]
        + [(each.pair, each.decode_tok_s) for each in beside],
        "orch_prompt_tokens_per_second": [(pair, now.prompt_tok_s) for pair in running]
        + [(each.pair, each.prompt_tok_s) for each in beside],
        "orch_gpu_info": [((*labels, each["name"], each["vendor"]), 1) for labels, each in gpus],
        "orch_gpu_memory_used_bytes": [(labels, _bytes(each["used_mib"])) for labels, each in gpus],
        "orch_gpu_memory_total_bytes": [(labels, _bytes(each["total_mib"])) for labels, each in gpus],
        "orch_gpu_memory_engine_bytes": [(labels, _bytes(each["engine_mib"])) for labels, each in gpus],
        "orch_gpu_utilization_ratio": [(labels, each["utilization"]) for labels, each in gpus],
        "orch_gpu_power_watts": [(labels, each["power_w"]) for labels, each in gpus],
        "orch_gpu_temperature_celsius": [(labels, each["temperature_c"]) for labels, each in gpus],
        "orch_host_memory_total_bytes": [((), _bytes(host["memory_total_mib"]) if host else None)],
        "orch_host_memory_available_bytes": [((), _bytes(host["memory_available_mib"]) if host else None)],
        "orch_host_swap_used_bytes": [((), _bytes(host["swap_used_mib"]) if host else None)],
        "orch_engine_resident_memory_bytes": [((), _bytes(host["engine_rss_mib"]) if host else None)],
        "orch_resident_state": [
            ((*each.pair, name), int(name == each.state)) for each in residents for name in RESIDENT_STATES
        ],
        "orch_resident_focus": [(each.pair, int(each.focus)) for each in residents],
        "orch_resident_pinned": [(each.pair, int(each.pinned)) for each in residents],
        "orch_resident_requests_in_flight": [(each.pair, each.in_flight) for each in residents],
        "orch_resident_requests_queued": [(each.pair, each.queued) for each in residents],
        "orch_resident_gpu_memory_bytes": [
            ((*each.pair, *gpu), _bytes(mib)) for each in residents for gpu, mib in each.gpus_mib.items()
        ],
        "orch_resident_host_memory_bytes": [(each.pair, _bytes(each.host_mib)) for each in residents],
        "orch_energy_joules_total": [
            ((*model, use), joules)
            for model, each in now.energy.items()
            for use, joules in (("busy", each.busy_j), ("idle", each.idle_j))
        ],
        "orch_history_dropped_total": [((), now.history_dropped)],
    }


def pages_of(now: Snapshot) -> list[tuple[Pair, Sequence[Family]]]:
    """Return what the instances say of themselves, with whose it is."""
    focus = [(now.pair, now.engine)] if now.pair is not None else []
    return [*focus, *((each.pair, each.engine) for each in now.beside)]


def _passed_on(pages: Sequence[tuple[Pair, Sequence[Family]]]) -> Iterator[Metric]:
    """Yield each family once, with the samples of all engines that have it."""
    from prometheus_client.metrics_core import Metric

    metrics: dict[str, Metric] = {}
    for pair, families in pages:
        ours = dict(zip(_PAIR, pair, strict=True))
        for family in families:
            # The writer names a counter `..._total` whatever it was named; upstream has one that is not.
            counts = family.kind == "counter" and family.name.endswith("_total")
            kind = "counter" if counts else "gauge" if family.kind == "gauge" else "unknown"
            name = family.name.removesuffix("_total") if counts else family.name
            metric = metrics.setdefault(name, Metric(name, family.help, kind))
            for labels, value in family.samples.items():
                metric.add_sample(family.name, {**dict(labels), **ours}, value)

    yield from metrics.values()


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    buckets, count = [], 0
    for bound, more in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        count += more
        buckets.append((bound, float(count)))

    return buckets


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib << 20
