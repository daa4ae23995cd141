"""LoRA adapters and metadata overrides on the command line: settings whose words need more than a row."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.dialect.forms import Sheet, accepts_flag, engine_text, spell
from orchestrator.core.dialect.tables import ADAPTERS
from orchestrator.core.profile.free_tables import OVERRIDE_KV, free_values
from orchestrator.core.profile.settings import Value

_COMMA_LISTS = "--fit-target="
"""Upstream's lists of adapters and overrides came with fitting, in December 2025."""


def render_adapters(settings: Mapping[str, Value], caps: Capabilities, sheet: Sheet) -> None:
    """Add `lora.*` to the command line."""
    files, scales = settings.get("lora.adapters"), settings.get("lora.scales")
    scaled = isinstance(files, tuple) and isinstance(scales, tuple)
    if isinstance(scales, tuple) and not scaled:
        sheet.note("lora.scales", scales, "not passed, there is no `lora.adapters`")

    for row in ADAPTERS:
        together = row.setting == "lora.scales" or (scaled and row.setting == "lora.adapters")
        if row.setting in settings and not together:
            sheet.add(row.setting, settings[row.setting], spell(row, settings[row.setting], caps))

    if isinstance(files, tuple) and isinstance(scales, tuple):
        _add_scaled([str(file) for file in files], [float(scale) for scale in scales], caps, sheet)


def _add_scaled(files: list[str], scales: list[float], caps: Capabilities, sheet: Sheet) -> None:
    flag = "--lora-scaled"
    if caps.find(flag) is None:
        sheet.refuse("lora.scales", tuple(scales), f"it has no `{flag}`; nearest here `lora.adapters` without scales")
        return

    # As many as there are of both; that their numbers agree is a rule of profiles.
    pairs = [(file, engine_text(scale)) for file, scale in zip(files, scales, strict=False)]
    if not accepts_flag(caps, _COMMA_LISTS):
        sheet.argv += [word for file, scale in pairs for word in (flag, file, scale)]
        return

    bad = next((file for file, _ in pairs if any(char in file for char in ',:"')), None)
    if bad is not None:
        sheet.refuse("lora.scales", tuple(scales), f'`{flag}` takes no path with `,`, `:` or `"`, found {bad}')
        return

    sheet.argv += [flag, ",".join(f"{file}:{scale}" for file, scale in pairs)]


def render_overrides(settings: Mapping[str, Value], caps: Capabilities, sheet: Sheet) -> None:
    """Add `[override_kv]` to the command line: `KEY=TYPE:VALUE`, the type from the value's."""
    words = [f"{key}={_typed(value)}" for key, value in free_values(settings, OVERRIDE_KV).items()]
    if not words:
        return

    flag = "--override-kv"
    if caps.find(flag) is None:
        for key, value in free_values(settings, OVERRIDE_KV).items():
            sheet.refuse(f"{OVERRIDE_KV}.{key}", value, f"it has no `{flag}`; nearest here a file with that metadata")
    elif accepts_flag(caps, _COMMA_LISTS):
        sheet.argv += [flag, ",".join(sorted(words))]
    else:
        sheet.argv += [word for each in sorted(words) for word in (flag, each)]


def _typed(value: Value) -> str:
    if isinstance(value, bool):
        return "bool:true" if value else "bool:false"

    kind = {int: "int", float: "float"}.get(type(value), "str")
    return f"{kind}:{engine_text(value)}"
