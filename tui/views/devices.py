"""Device and host memory as bars, with power and temperature.

A bar tells whose memory it is by its signs as well as by colour: `█` our engines, `▓` others, `·` free, `┆` where the
margin begins that is to stay free. Where several profiles share a device, each has a sign of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.api.top_frames import GpuFigures, HostFigures, TopFrame
from tui import figures
from tui.text import BLANK, Line, Role, Span, cells, clip, cut, joined, line, plain

STALE_S = 5.0
HOT_C = 85.0
Sign = tuple[str, Role]

_ENGINE: Sign = ("█", "engine")
_OTHERS: Sign = ("▓", "others")
_FREE: Sign = ("·", "free")
_SIGNS = (_ENGINE, _OTHERS)
_RESIDENT_SIGNS: tuple[Sign, ...] = (_ENGINE, ("▚", "accent"), ("▞", "good"), ("▙", "strong"))
"""Of the profiles that share a device, the one in focus first; further ones are drawn as the first."""


def devices(frame: TopFrame, width: int) -> list[Line]:
    lines: list[Line] = []
    if not frame["gpus"]:
        lines.append(line(cut("no GPU driver found: engines run on the CPU", width), "dim"))

    margin_mib = frame["status"]["margin_mib"]
    for gpu in frame["gpus"]:
        lines += _gpu(gpu, margin_mib, width)

    stale_s = frame["gpus_stale_s"]
    if stale_s is not None and stale_s > STALE_S:
        lines.append(line(f"! the driver has not answered for {figures.duration(stale_s)}", "warn"))

    return lines + _host(frame["host"], width)


def memory_bar(
    parts: Sequence[float],
    total: float,
    mark: float | None,
    width: int,
    signs_of: Sequence[Sign] = _SIGNS,
) -> Line:
    """Return a bar of `width` cells.

    :param parts: what each holds: our engines and others
    :param mark: where to draw the margin's line, in the unit of the rest
    :param signs_of: the sign of each part
    """
    if total <= 0 or width <= 0:
        return BLANK

    signs: list[Sign] = []
    for index, (part, sign) in enumerate(zip(parts, signs_of, strict=True)):
        end = round(min(sum(parts[: index + 1]) / total, 1.0) * width)
        if part > 0 and end <= len(signs):  # whoever holds something is seen
            end = min(len(signs) + 1, width)

        signs += [sign] * (end - len(signs))

    signs += [_FREE] * (width - len(signs))
    if mark is not None and 0 < mark < total:
        at = min(round(mark / total * width), width - 1)
        signs[at] = ("┆", "warn")

    return _grouped(signs)


def _gpu(gpu: GpuFigures, margin_mib: int | None, width: int) -> list[Line]:
    temperature = gpu["temperature_c"]
    facts: list[Line] = [
        line("" if gpu["utilization"] is None else f"{figures.share(gpu['utilization'])} busy"),
        line(figures.watts(gpu["power_w"], gpu["power_limit_w"])),
        line(figures.celsius(temperature), "warn" if temperature is not None and temperature >= HOT_C else ""),
    ]
    why = line(f"! {', '.join(gpu['throttle'])}", "warn") if gpu["throttle"] else BLANK
    right = joined([fact for fact in facts if plain(fact)])
    below: list[Line] = []
    if cells(plain(joined([right, why]))) <= width:
        right = joined([right, why])
    else:  # a warning is not what gets cut off
        below = [clip(why, width)]

    name = gpu["name"].removeprefix("NVIDIA ").removeprefix("GeForce ")
    title = f"GPU {gpu['index']} {name}"
    room = width - cells(plain(right)) - 2
    if room < 6:
        head = [line(cut(title, width), "strong"), clip(right, width), *below]
    else:
        head = [((cut(title, room), "strong"), ("  ", ""), *right), *below]

    total, used = gpu["total_mib"], gpu["used_mib"]
    ours = gpu["engine_mib"]
    # Where the driver does not tell whose memory it is, all of it may be ours. What it keeps for itself is not free.
    taken = 0 if ours is None else max(used - ours, 0)
    amount = f" {figures.of_mib(used, total)}"
    mark = None if margin_mib is None else total - margin_mib
    owners = _owners(gpu)
    parts = [mib for _, mib in owners] or [used if ours is None else ours]
    signs_of = [_RESIDENT_SIGNS[index % len(_RESIDENT_SIGNS)] for index in range(len(parts))]
    bar = memory_bar((*parts, taken), total, mark, width - cells(amount), (*signs_of, _OTHERS))
    legend: list[Span] = []
    if owners and ours is not None:
        named = zip(owners, signs_of, strict=True)
        legend = [(f"{sign} {name} {figures.mib(mib)}  ", role) for (name, mib), (sign, role) in named]
        legend.append((f"▓ others {figures.mib(gpu['others_mib'])}", "others"))
    elif ours is not None:
        others = figures.mib(gpu["others_mib"])
        legend = [(f"█ engine {figures.mib(ours)}", "engine"), (f"  ▓ others {others}", "others")]

    free = f"  · free {figures.mib(max(total - used, 0))}"
    return [*head, (*bar, (amount, "")), _cut((*legend, (free if legend else free.strip(), "dim")), width)]


def _owners(gpu: GpuFigures) -> list[tuple[str, int]]:
    """Return the profiles that share a device with what they hold; empty where there is one, or it is not known."""
    shares, ours = gpu.get("shares", []), gpu["engine_mib"]
    if len(shares) < 2 or ours is None:
        return []

    first, *others = [(each["profile"], each["mib"]) for each in shares]
    rest = max(ours - sum(each["mib"] for each in shares), 0)  # of which nobody tells whose it is
    return [(first[0], first[1] + rest), *others]


def _host(host: HostFigures, width: int) -> list[Line]:
    total = host["memory_total_mib"]
    if total <= 0:
        return []

    used = total - host["memory_available_mib"]
    ours = min(host["engine_rss_mib"] or 0, used)
    amount = f" {figures.of_mib(used, total)}"
    label = "host "
    bar = memory_bar((ours, used - ours), total, None, width - len(label) - cells(amount))
    notes: list[Line] = []
    if host["model_mib"] is not None and host["model_resident_mib"] is not None:
        part = min(host["model_resident_mib"] / max(host["model_mib"], 1), 1.0)
        notes.append(line(f"model {figures.share(part)} in page cache", "dim"))

    if host["swap_used_mib"]:
        notes.append(line(f"swap {figures.mib(host['swap_used_mib'])}", "warn"))

    if host["pressure_some"] is not None and host["pressure_some"] >= 0.05:
        notes.append(line(f"! stalls {figures.share(host['pressure_some'])}", "warn"))

    lines: list[Line] = [((label, "strong"), *bar, (amount, ""))]
    return lines + ([_cut(joined(notes), width)] if notes else [])


def _cut(spans: Line, width: int) -> Line:
    """Return as many whole spans as fit."""
    kept: list[Span] = []
    for text, role in spans:
        if cells(plain(tuple(kept))) + cells(text) > width:
            break

        kept.append((text, role))

    return tuple(kept)


def _grouped(signs: list[Sign]) -> Line:
    spans: list[Span] = []
    for sign, role in signs:
        if spans and spans[-1][1] == role:
            spans[-1] = (spans[-1][0] + sign, role)
        else:
            spans.append((sign, role))

    return tuple(spans)
