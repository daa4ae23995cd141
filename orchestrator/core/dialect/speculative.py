"""Speculative decoding in each build's own words.

Four grammars: upstream since b9246 (`--spec-type draft-mtp --spec-draft-n-max N`), upstream before (`--draft-max N`, no
MTP), the fork until May 2026 (`-mtp --draft-max N`), the fork since (`--spec-type mtp:n_max=N,p_min=P`). Which one a
build speaks is not asked: each setting has its forms, and the fork's stages are a capability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.dialect.forms import Inexpressible, Sheet, Spelled, engine_text, spell
from orchestrator.core.dialect.tables import DEFAULT, ONLY_FORK, ONLY_UPSTREAM, Form, Row, Shape, kv, layers, option
from orchestrator.core.profile.settings import SPECULATIVE_TYPES, Value
from orchestrator.core.profile.speculation import DRAFTERS, NEED_DRAFT_MODEL, NO_SPECULATION, speculation_types

_NGRAM = tuple(name for name in SPECULATIVE_TYPES if name.startswith("ngram-"))
_NGRAM_MAPS = ("ngram-simple", "ngram-map-k", "ngram-map-k4v")

_CHAINS = "draft-mtp"
"""The word in the list of `--spec-type` that came with lists of types (b9246)."""

MTP_DEFAULTS: Mapping[str, Value] = {"speculative.draft_max": 3, "speculative.draft_p_min": 0.0}
"""Passed with `mtp` when the profile is silent: upstream drafts 3 above 0.0, the fork 16 above 0.75."""

TYPE = Row("speculative.type", (
    Form(
        Shape.VALUE, ("--spec-type",), listed=True,
        spelled={"draft": "draft-simple", **{name: f"draft-{name}" for name in ("mtp", "eagle3", "dflash", "dspark")}},
    ),
    Form(Shape.BARE, ("-mtp",), when=("mtp",)),
    Form(Shape.OMIT, when=("draft",), beside=("--model-draft=",), note="the draft model's flag alone turns it on here"),
), nearest="nearest here `draft` with a draft model, or another build",
   only={"suffix": ONLY_FORK, "eagle3": ONLY_UPSTREAM})  # fmt: skip


def _ngram(part: str, mod: str, old: str) -> tuple[Form, ...]:
    forms = [Form(Shape.VALUE, (f"--spec-{name}-{part}",), types=(name,)) for name in _NGRAM_MAPS]
    if mod:
        forms.append(Form(Shape.VALUE, (mod,), types=("ngram-mod",)))

    return (*forms, Form(Shape.VALUE, (old,)))


_AS_M = "nearest here `speculative.ngram_m`, the length of what is drafted"

ROWS: tuple[Row, ...] = (
    Row("speculative.draft_model", (Form(Shape.VALUE, ("--spec-draft-model", "--model-draft")),)),
    Row("speculative.draft_max", (
        Form(Shape.VALUE, ("--spec-ngram-mod-n-max",), types=("ngram-mod",)),
        Form(Shape.VALUE, ("--spec-draft-n-max",), types=DRAFTERS),
        Form(Shape.VALUE, ("--draft-max",)),
    ), nearest=_AS_M),
    Row("speculative.draft_min", (
        Form(Shape.VALUE, ("--spec-ngram-mod-n-min",), types=("ngram-mod",)),
        Form(Shape.VALUE, ("--spec-draft-n-min",), types=DRAFTERS),
        Form(Shape.VALUE, ("--draft-min",), types=("mtp",), beside=("-mtp!",), note="this build takes 0 for MTP"),
        Form(Shape.VALUE, ("--draft-min",)),
    ), nearest="nearest here `speculative.ngram_min_hits`, which keeps rare drafts away"),
    Row("speculative.draft_p_min", (Form(Shape.VALUE, ("--spec-draft-p-min", "--draft-p-min")),)),
    Row("speculative.ngram_n", _ngram("size-n", "--spec-ngram-mod-n-match", "--spec-ngram-size-n")),
    Row(
        "speculative.ngram_m", _ngram("size-m", "", "--spec-ngram-size-m"),
        nearest="nearest here `speculative.draft_max`",
    ),
    Row("speculative.ngram_min_hits", _ngram("min-hits", "", "--spec-ngram-min-hits")),
    layers("speculative.draft_gpu_layers", "--spec-draft-ngl", "--n-gpu-layers-draft", "--gpu-layers-draft"),
    Row("speculative.draft_devices", (
        Form(Shape.VALUE, ("--device-draft",), kinds=("ik",), forbid="-"),
        Form(Shape.VALUE, ("--spec-draft-device", "--device-draft"), kinds=("upstream", "unknown")),
    )),
    kv("speculative.kv_k", "--cache-type-k-draft", "--spec-draft-type-k"),
    kv("speculative.kv_v", "--cache-type-v-draft", "--spec-draft-type-v"),
    Row("speculative.autotune", option("--spec-autotune"), nearest="nearest here a fixed `speculative.draft_max`"),
    Row("speculative.checkpoint_mode", (
        Form(Shape.VALUE, ("--spec-ckpt-mode", "--recurrent-ckpt-mode")),
        Form(Shape.OMIT, when=("auto",), note="nothing to pass, this build chooses by itself"),
    ), nearest="nearest here auto"),
)  # fmt: skip

_ALWAYS = ("speculative.autotune", "speculative.checkpoint_mode")
_LENGTHS = ("speculative.draft_max", "speculative.draft_min")
_CACHES = ("speculative.kv_k", "speculative.kv_v")
_PLACES = ("speculative.draft_model", "speculative.draft_gpu_layers", "speculative.draft_devices")
_GRAMS = ("speculative.ngram_n", "speculative.ngram_m", "speculative.ngram_min_hits")

APPLIES: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "mtp": (*_LENGTHS, "speculative.draft_p_min", *_CACHES, *_ALWAYS),
    **dict.fromkeys(
        NEED_DRAFT_MODEL, (*_PLACES, *_LENGTHS, "speculative.draft_p_min", *_CACHES, *_ALWAYS)
    ),
    **dict.fromkeys(_NGRAM, (*_LENGTHS, *_GRAMS, *_ALWAYS)),
    "ngram-cache": (*_LENGTHS, *_ALWAYS),
    "suffix": (*_LENGTHS, *_ALWAYS),
}  # fmt: skip
"""The settings that have a meaning for each type; a profile's other speculative settings are for another type."""

STAGE_KEYS: Mapping[str, str] = {
    "speculative.draft_max": "n_max",
    "speculative.draft_min": "n_min",
    "speculative.draft_p_min": "p_min",
    "speculative.ngram_n": "ngram_size_n",
    "speculative.ngram_m": "ngram_size_m",
    "speculative.ngram_min_hits": "ngram_min_hits",
}
"""Keys of a stage in the fork since May 2026 (`common_speculative_stage_apply_kv`)."""

STAGE_TYPES = tuple(name for name in SPECULATIVE_TYPES if name != "eagle3")


def render_speculation(settings: Mapping[str, Value], caps: Capabilities, sheet: Sheet) -> None:
    """Add everything below `speculative.` to the command line, in this build's words."""
    given = {path: value for path, value in settings.items() if path.startswith("speculative.")}
    types = speculation_types(settings)
    asked = given.pop("speculative.type", "none")
    allowed = {path for kind in types for path in APPLIES[kind]}
    if "mtp" in types and "speculative.draft_model" in given:
        allowed |= set(_PLACES)

    for path in [path for path in given if path not in allowed]:
        sheet.note(path, given.pop(path), f"not passed, it has no meaning with `speculative.type = {', '.join(types)}`")

    if types == NO_SPECULATION:
        if "speculative.type" in settings:
            sheet.note("speculative.type", asked, DEFAULT)

        return

    if "mtp" in types:
        _complete_mtp(settings, given, caps, sheet)

    if caps.spec_stages:
        _add_stages(types, given, sheet)
    else:
        _add_types(types, asked, caps, sheet)

    for row in ROWS:
        if row.setting in given:
            kind = _type_of(row.setting, types)
            sheet.add(row.setting, given[row.setting], spell(row, given[row.setting], caps, kind))


def _type_of(path: str, types: Sequence[str]) -> str:
    """Return the type in a chain that a setting is about: lengths of grams are the n-grams', all else the drafter's."""
    wanted = _NGRAM if path in _GRAMS else DRAFTERS
    return next((kind for kind in types if kind in wanted), types[0])


def _add_types(types: Sequence[str], asked: Value, caps: Capabilities, sheet: Sheet) -> None:
    if len(types) == 1:
        sheet.add("speculative.type", asked, spell(TYPE, types[0], caps, types[0]))
        return

    results = [spell(TYPE, kind, caps, kind) for kind in types]
    refused = next((result for result in results if isinstance(result, Inexpressible)), None)
    flag = caps.find("--spec-type")
    if refused is not None:
        sheet.refuse("speculative.type", asked, refused.reason)
    elif flag is None or _CHAINS not in (flag.choices or ()):
        nearest = next((kind for kind in types if kind in DRAFTERS), types[0])
        sheet.refuse("speculative.type", asked, f'it takes one type, no chain; nearest here "{nearest}"')
    else:
        words = [result.argv[1] for result in results if isinstance(result, Spelled)]
        sheet.argv += ["--spec-type", ",".join(words)]


def _add_stages(types: Sequence[str], given: dict[str, Value], sheet: Sheet) -> None:
    unknown = next((kind for kind in types if kind not in STAGE_TYPES), None)
    shown: Value = types[0] if len(types) == 1 else tuple(types)
    if unknown is not None:
        sheet.refuse("speculative.type", shown, f"its stages are {', '.join(STAGE_TYPES)}; use upstream")
        return

    ordered = sorted(types, key=lambda kind: kind in DRAFTERS)
    if len(ordered) > 1 and (len(ordered) > 2 or ordered[0] in DRAFTERS or ordered[1] not in ("mtp", "draft")):
        sheet.refuse(
            "speculative.type", shown, "its chain is one n-gram stage, then `mtp` or `draft`; nearest here two"
        )
        return

    if ordered != list(types):
        sheet.note("speculative.type", shown, f"passed as {', '.join(ordered)}: this build has its n-grams first")

    for kind in ordered:
        keys = {
            key: given.pop(path) for path, key in STAGE_KEYS.items() if path in given and _type_of(path, types) == kind
        }
        options = ",".join(f"{key}={engine_text(value)}" for key, value in keys.items())
        sheet.argv += ["--spec-type", f"{kind}:{options}" if options else kind]


def _complete_mtp(settings: Mapping[str, Value], given: dict[str, Value], caps: Capabilities, sheet: Sheet) -> None:
    """Add what MTP is given when the profile is silent, and refuse what this build's MTP does not take."""
    for path, value in MTP_DEFAULTS.items():
        if path not in given:
            given[path] = value
            sheet.notes.append(f"{path} is unset: {value} is passed, as the engines' own defaults differ")

    drafter = given.get("speculative.draft_model")
    if drafter is None:
        for path in _CACHES:
            _add_mtp_cache(path, settings, given, caps, sheet)
    elif caps.kind == "ik" and not caps.spec_stages:
        del given["speculative.draft_model"]
        reason = "its MTP drafts with the model's own head alone; builds from June 2026 take a file"
        sheet.refuse("speculative.draft_model", drafter, f"{reason}; nearest here a model that has its MTP layers")


def _add_mtp_cache(
    path: str, settings: Mapping[str, Value], given: dict[str, Value], caps: Capabilities, sheet: Sheet
) -> None:
    """The fork's MTP context has the main cache's types and ignores the drafter's; upstream's is f16 unless told."""
    main_path = path.replace("speculative.kv_", "kv.")
    main = settings.get(main_path, "f16")
    if caps.kind != "ik":
        if path not in given and main_path in settings:
            sheet.notes.append(f"{path} is unset: MTP's own cache stays f16 here (the fork gives it `{main_path}`)")

        return

    value = given.pop(path, None)
    if value == main:
        sheet.note(path, main, f"not passed, MTP has the type of `{main_path}` here, which is the same")
    elif value is not None:
        sheet.refuse(path, value, f"MTP ignores it and has the type of `{main_path}`; nearest here {main}")
