"""The keys of a profile that are not engine settings: its head, and its tables for recovery and residency."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.profile.free_tables import FREE_TABLES
from orchestrator.core.profile.settings import TABLES, Setting
from orchestrator.core.profile.variants import KEY as VARIANTS

HEAD: Mapping[str, Setting] = {
    row.path: row
    for row in (
        Setting("schema", ("int",), "version of this format"),
        Setting(
            "description",
            ("string",),
            "one line for people",
            form=(r"[^\x00-\x1f\x7f-\x9f]*", "one line of printable text"),
        ),
        Setting("model", ("path",), "GGUF file (the first split), relative to this file; `~` is your home"),
        Setting(
            "aliases",
            ("strings",),
            "more names that clients may send as `model`",
            form=(r"[^-,\s][^,]*", "a name without a comma"),
        ),
        Setting("extends", ("string",), "name of the profile to start from"),
        Setting("extra_args", ("strings",), "arguments added at the end, for what has no setting"),
    )
}

RECOVERY: Mapping[str, Setting] = {
    row.key: row
    for row in (
        Setting(
            "recovery.margins",
            ("ints",),
            "device memory kept free, MiB, in the order tried",
            minimum=1,
            maximum=1048576,
        ),
        Setting(
            "recovery.then",
            ("strings",),
            "steps allowed after the last margin: `kv:TYPE`, `context:N`, `n_cpu_moe:+N`",
        ),
        Setting("recovery.max_attempts", ("int",), "starts in one recovery at most", minimum=1, maximum=100),
    )
}

RESIDENCY: Mapping[str, Setting] = {
    row.key: row
    for row in (
        Setting(
            "residency.idle_unload_s",
            ("float",),
            "unload it after so long without a request, s; 0: never; without it as `orch.toml` says",
            minimum=0,
            maximum=2_592_000,
        ),
        Setting("residency.pinned", ("bool",), "never unload it to make room for another one, nor when nobody uses it"),
        Setting(
            "residency.priority",
            ("float",),
            "how much more it is worth to keep than one of priority 1",
            minimum=0.001,
            maximum=1000,
        ),
        Setting(
            "residency.max_in_flight",
            ("int",),
            "requests that it is given at a time; more wait; 0: any number",
            minimum=0,
            maximum=4096,
        ),
    )
}

TOP_KEYS = (*HEAD, "engine", "recovery", "residency", VARIANTS, *TABLES, *FREE_TABLES)

ENGINE_KEYS = ("extra_args", "recovery", *TABLES, *FREE_TABLES)
"""The keys that a table `[engine.ID]` may hold."""
