"""Command lines of both engines and all ages in one canonical form, so that two can be compared by meaning.

Which spellings belong together is read from the recorded builds' help texts; what changed its form over the years is
in the tables below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from tests.unit.core.dialect.fixture_builds import BUILDS, build

Canonical = Mapping[str, tuple[str, ...]]
"""A name to its values, in the order given; `()` is a bare flag."""

_TOGETHER = (
    "-m --model", "-c --ctx-size", "-fmoe --fused-moe", "-no-fmoe --no-fused-moe",
    "-fa --flash-attn -fattn", "-md --model-draft --spec-draft-model --draft-model",
    "--draft-max --draft --draft-n --spec-draft-n-max --spec-draft-max --spec-ngram-mod-n-max",
    "--draft-min --draft-n-min --spec-draft-n-min --spec-ngram-mod-n-min", "--draft-p-min --spec-draft-p-min",
    "-ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-ngl", "-devd --device-draft --spec-draft-device",
    "-ctkd --cache-type-k-draft --spec-draft-type-k", "-ctvd --cache-type-v-draft --spec-draft-type-v",
    "--fit-target -fitt --fit-margin", "--swa-checkpoints --ctx-checkpoints -ctxcp -ctx-ckpt",
    "--temp --temperature", "-n --predict --n-predict --max-tokens", "--repeat-penalty --repetition-penalty",
    "--top-nsigma --top-n-sigma", "--rerank --reranking", "--embedding --embeddings", "-a --alias",
    "--checkpoint-min-step -cms --ctx-checkpoints-interval -ctx-ckpt-i --checkpoint-every-n-tokens -cpent",
    "--spec-ckpt-mode --recurrent-ckpt-mode", "--reasoning -rea", "-ctk --cache-type-k", "-ctv --cache-type-v",
    "--spec-ngram-mod-n-match --spec-ngram-size-n --spec-ngram-simple-size-n --spec-ngram-map-k-size-n",
    "--spec-ngram-size-n --spec-ngram-map-k4v-size-n",
    "--spec-ngram-size-m --spec-ngram-simple-size-m --spec-ngram-map-k-size-m --spec-ngram-map-k4v-size-m",
    "--spec-ngram-min-hits --spec-ngram-simple-min-hits --spec-ngram-map-k-min-hits --spec-ngram-map-k4v-min-hits",
)  # fmt: skip

_NEGATED = {
    "--no-mmap": "--mmap", "--no-context-shift": "--context-shift", "--no-jinja": "--jinja", "--no-warmup": "--warmup",
    "--no-kv-offload": "--kv-offload", "--no-kv-unified": "--kv-unified", "--no-mmproj-offload": "--mmproj-offload",
    "--no-op-offload": "--op-offload", "--no-repack": "--repack", "--no-fused-moe": "--fused-moe",
    "--no-graph-reuse": "--graph-reuse", "--no-flash-attn": "--flash-attn", "--no-direct-io": "--direct-io",
    "--no-reasoning-preserve": "--reasoning-preserve",
}  # fmt: skip

_ORCHS = re.compile(
    r"--(host|port|api-key.*|metrics|no-metrics|slots|no-slots|props|no-props|offline|(no-)?(web)?ui.*|log-.*|no-log-.*"
    r"|verbos.*|alias|sse-ping-interval|models-.*|ssl-.*|(spec-draft-)?hf.*|minilog|timeout|reuse-port)|-lv|-v|-a|-hf.*"
)
_NEEDLESS = re.compile(
    r"--(cont-batching|no-mmproj(-auto)?|verbose-prompt|no-display-prompt|display-prompt|color|prompt|interactive"
    r"|conversation|prompt-cache.*|system-prompt|simple-io|file|single-turn|reverse-prompt)|-(cnv|p|i|co|f|r|st)"
)
_ADDED = {
    "--parallel": "1", "--context-shift": "off", "--jinja": "on", "--draft-max": "3", "--draft-p-min": "0", "-lv": "4",
}  # fmt: skip
"""What orch passes where the source is silent, and says so."""

_DEFAULTS = {
    "--mmap": "on", "--warmup": "on", "--kv-offload": "on", "--mmproj-offload": "on", "--op-offload": "on",
    "--repack": "on",
    "--fused-moe": "on", "--graph-reuse": "on", "--threads": "-1", "--threads-batch": "-1", "--predict": "-1",
    "--spec-type": "none", "--reasoning": "auto", "--parallel-tool-calls": "on", "--draft-min": "0", "--jinja": "on",
    "--kv-unified": "on", "--run-time-repack": "off", "--cache-reuse": "0", "--cache-ram": "0", "--mlock": "off",
    "--attention-max-batch": "0", "--n-gpu-layers": "auto", "--ctx-checkpoints": "-1", "--lazy-mode": "auto",
    "--spec-ckpt-mode": "auto", "--direct-io": "off",
}  # fmt: skip
"""What an engine does by itself, so that saying it changes nothing."""

_SPEC = {
    "draft-mtp": "mtp",
    "draft-simple": "draft",
    "draft-eagle3": "eagle3",
    "draft-dflash": "dflash",
    "nextn": "mtp",
}
_PLACED = ("--n-gpu-layers", "--cpu-moe", "--n-cpu-moe", "--n-cpu-ffn", "--override-tensor", "--tensor-split")
_PATHS = ("--model", "--mmproj", "--model-draft", "--chat-template-file")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SETS = ("--override-tensor", "--spec-type", "--lora", "--override-kv")


@cache
def _names() -> Mapping[str, str]:
    """Return each spelling with the name of its group."""
    groups: list[set[str]] = [set(line.split()) for line in _TOGETHER]
    for name in BUILDS:
        for flag in build(name).each():
            positive = {each for each in flag.spellings if not each.startswith(("--no-", "-no-", "-n"))}
            own = (
                positive if positive and len(positive) < len(flag.spellings) and not flag.value else set(flag.spellings)
            )
            groups += [part for part in (own, set(flag.spellings) - own) if part]

    merged: list[set[str]] = []
    for group in groups:
        for other in [each for each in merged if each & group]:
            group |= other
            merged.remove(other)

        merged.append(group)

    return {spelling: max(sorted(group), key=_rank) for group in merged for spelling in group}


_PREFERRED = ("--draft-max", "--draft-min", "--draft-p-min", "--predict", "--n-gpu-layers", "--model-draft", "--temp",
              "--embeddings", "--reranking", "--ctx-checkpoints", "--parallel", "--spec-ckpt-mode",
              "--fit-target")  # fmt: skip


def _rank(spelling: str) -> tuple[bool, int]:
    return spelling in _PREFERRED, len(spelling)


_REFUSED = re.compile(r"--(tools|slot-save-path|media-path|path|lookup-cache-dynamic|agent|mcp.*|logdir)\b")


def reason_for(difference: str) -> str:
    """Return why a difference is not the import's doing; empty where it is."""
    if _REFUSED.match(difference):
        return "orch refuses it"

    if "${" in difference.partition(" -> ")[0]:
        return "the source does not say the value"

    return "a cache type of a third fork" if re.match(r"--cache-type-[kv]\S* turbo", difference) else ""


def canonical(arguments: Sequence[str]) -> Canonical:
    """Return a command line in canonical form."""
    found: dict[str, tuple[str, ...]] = {}
    for flag, value in _pairs(arguments):
        name = _names().get(flag) or _names().get(flag[1:] if flag.startswith("--") else f"-{flag}", flag)
        for key, text in _normal(name, value):
            if _ORCHS.fullmatch(key) or _NEEDLESS.fullmatch(key):
                continue

            found[key] = tuple(dict.fromkeys((*found.get(key, ()), text))) if key in _SETS else (text,)

    return found


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    at = 0
    arguments = _without_empty(arguments)
    while at < len(arguments):
        word = arguments[at]
        flag = word.replace("_", "-") if word.startswith("--") else word
        follows = arguments[at + 1] if at + 1 < len(arguments) else None
        takes = follows is not None and (not follows.startswith("-") or _NUMBER.fullmatch(follows) is not None)
        if takes and re.fullmatch(r"\$\{\w+\}", follows or "") and flag not in _valued() and flag in _names():
            takes = False  # flags that a variable holds
        name, equals, inside = flag.partition("=")
        if equals and flag.startswith("--"):
            yield name, word.partition("=")[2]
            at += 1
        else:
            yield flag, follows if takes else None
            at += 2 if takes else 1


def _without_empty(arguments: Sequence[str]) -> list[str]:
    """Leave out variables that are empty, and the flags whose value they would be."""
    kept: list[str] = []
    for word in arguments:
        if not re.fullmatch(r"\$\{\w+:-\}", word):
            kept.append(word)
        elif kept and kept[-1] in _valued():
            kept.pop()

    return kept


@cache
def _valued() -> frozenset[str]:
    """Return the spellings that have a value in every build."""
    flags = [flag for name in BUILDS for flag in build(name).each()]
    bare = {spelling for flag in flags if not flag.value for spelling in flag.spellings}
    return frozenset(spelling for flag in flags for spelling in flag.spellings) - bare


def _normal(name: str, value: str | None) -> Iterator[tuple[str, str]]:
    if name in _NEGATED:
        off = value is None or value.lower() in ("on", "true", "1")
        yield _NEGATED[name], "off" if off else "on"
    elif name == "--load-mode":
        modes = {"none": "off", "mlock": "off", "mmap": "on", "mmap+mlock": "on"}
        if value in modes:
            yield "--mmap", modes[value]

        if value and "mlock" in value:
            yield "--mlock", "on"
        elif value == "dio":
            yield "--direct-io", "on"
    elif name in ("-mtp", "--multi-token-prediction"):
        yield "--spec-type", "mtp"
    elif name in ("--spec-type", "--spec-stage"):
        yield from _stages(value or "")
    elif value is None:
        yield name, "on"
    elif name == "--override-kv" or name == "--override-tensor":
        yield from ((name, part.strip()) for part in value.split(",") if part)
    else:
        yield name, _text(name, value)


def _stages(value: str) -> Iterator[tuple[str, str]]:
    keys = {"n_max": "--draft-max", "n_min": "--draft-min", "p_min": "--draft-p-min"}
    for part in value.split(","):
        word, colon, option = part.strip().partition(":")
        if "=" not in word:
            yield "--spec-type", _SPEC.get(word, word)

        pair = option if colon else word if "=" in word else ""
        key, _, number = pair.partition("=")
        if key in keys:
            yield _names().get(keys[key], keys[key]), _text("", number)


def _text(name: str, value: str) -> str:
    text = value.strip()
    if name in ("--n-gpu-layers", "--gpu-layers-draft") or name.endswith("-ngl") or "gpu-layers" in name:
        text = {"-1": "auto", "-2": "all", "999": "all", "99": "all"}.get(text, text)

    if "json" in name or "kwargs" in name:
        try:
            return json.dumps(json.loads(text), sort_keys=True)
        except ValueError:
            return text

    if name == "--tensor-split":
        return ",".join(f"{float(part):g}" for part in re.split(r"[,/]+", text) if _NUMBER.fullmatch(part))

    if name in ("--threads", "--threads-batch") and text == "0":
        return "-1"

    if name in ("--top-k", "--ctx-size") and text.startswith("-"):
        return "0"

    if _NUMBER.fullmatch(text):
        return f"{float(text):.9g}"

    leading = re.match(r"[+-]?\d+(?=[a-zA-Z,.])", text)
    if leading and name in ("--ctx-size", "--top-k", "--batch-size", "--ubatch-size", "--n-gpu-layers"):
        return leading[0]

    if name == "--samplers":
        return text.replace(",", ";")

    return {"true": "on", "false": "off", "1": "on", "0": "off"}.get(text.lower(), text)


def differences(before: Canonical, after: Canonical) -> list[str]:
    """Return what differs, each as `flag before -> after`; what says nothing new is left out."""
    placed = any(name in before for name in _PLACED)
    found = []
    for name in dict.fromkeys((*before, *after)):
        old, new = _value(before, name), _value(after, name)
        if name == "--override-kv" and old and new:
            old, new = tuple(sorted(old)), tuple(sorted(new))

        if old == new or name == "--model" and old is None:
            continue

        if new is None and name in _DEFAULTS and old == _switch(name, _DEFAULTS[name]):
            continue

        if old is None and (name in _DEFAULTS and new == _switch(name, _DEFAULTS[name])):
            continue

        if old is None and name in _ADDED and new == _switch(name, _ADDED[name]):
            continue

        if (
            name in ("--fit", "--fit-target", "--fit-ctx")
            and new is None
            and (placed or _value(before, "--fit") == ("off",))
        ):
            continue

        if name == "--fit" and new is None and old == ("off",):
            found.append("--fit off lost")
            continue

        if name in _PATHS and old and new and _file(old[0]) == _file(new[0]):
            continue

        if name == "--mmap" and _value(before, "--direct-io") == _value(after, "--direct-io") == ("on",):
            continue  # what is read past the page cache is not mapped

        if name == "--n-gpu-layers" and new is None and _value(after, "--fit") == ("on",):
            continue  # the fork's fit places every layer

        if name == "--n-gpu-layers-draft" and new is None and "--model-draft" not in before:
            continue  # MTP drafts with the model's own head

        if name == "--flash-attn" and _switches(old) == _switches(new):
            continue

        if name == "--ubatch-size" and old and new and _NUMBER.fullmatch(old[0]) and float(new[0]) < float(old[0]):
            continue

        if name == "--spec-type" and old is None and "--model-draft" in before:
            continue  # the file alone meant it

        if name == "--model-draft" and old is None and _value(before, "--spec-type") is not None:
            continue  # a file instead of a repository

        found.append(f"{name} {_shown(old)} -> {_shown(new)}")

    return found


def _file(path: str) -> str:
    """Return a file's name: folders of a container, or of a script, are written as they are on the machine."""
    return re.split(r"[/\\\\]", path)[-1]


def _value(form: Canonical, name: str) -> tuple[str, ...] | None:
    value = form.get(name)
    return None if value is None else tuple(_word(each) for each in value)


def _switch(name: str, text: str) -> tuple[str, ...]:
    return (_word(text),)


def _word(text: str) -> str:
    return {"1": "on", "0": "off"}.get(text, text)


def _switches(value: tuple[str, ...] | None) -> tuple[str, ...]:
    return tuple({"1": "on", "0": "off"}.get(each, each) for each in value or ())


def _shown(value: tuple[str, ...] | None) -> str:
    return "nothing" if value is None else ",".join(value)[:40]
