"""Published configurations through `orch import`: what becomes a profile, and whether it means the same.

    python -m benchmarks.import_coverage CONFIGS.jsonl [--show ID]

A line of the file is `{"id", "kind", "text", ...}`. For each start of a llama-server, what the source passes and what
the profile renders for a recorded build (`tests/fixtures/help`) are brought into one canonical form, which is made from
the builds' own help texts and a list of spellings here, not by the importer's reader, and compared.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import traceback
from collections import Counter
from functools import cache
from typing import NamedTuple

from benchmarks.import_canonical import canonical, differences, reason_for
from orchestrator.adapters.config.yaml_file import read_yaml
from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.dialect.known_flags import settings_of_flags
from orchestrator.core.errors import OrchError
from orchestrator.core.importing.builds import settle_on_build
from orchestrator.core.importing.findings import ImportEntry
from orchestrator.core.importing.sources import import_text, settle_names
from tests.unit.core.dialect.fixture_builds import FORK_STAGES, UPSTREAM, build

AIM = 0.8
"""The share of entries whose profile means the same, but for what orch refuses and what the source does not say."""


_MACHINE = {
    "HOME": "/home/user", "NUMBER_OF_PROCESSORS": "16", "0": "/srv/run.sh", "BASH_SOURCE": "/srv/run.sh",
    "PSScriptRoot": "/srv",
}  # fmt: skip
"""What `orch import` knows beside the text."""


class _Seen(NamedTuple):
    """One start of a server."""

    source: str
    kind: str
    entry: ImportEntry
    differs: tuple[str, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", help="a file with a JSON object on each line")
    parser.add_argument(
        "--show", metavar="ID", help="how each entry of this configuration differs; `all` for every one"
    )
    args = parser.parse_args()
    seen: list[_Seen] = []
    crashes = unreadable = 0
    with open(args.configs, encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if args.show in (None, "all", record["id"]):
                try:
                    seen += _import(record)
                except OrchError as error:
                    unreadable += 1
                    print(f"{record['id']}: {error.message}")
                except Exception:  # noqa: BLE001  each is one that must not be
                    crashes += 1
                    print(f"{record['id']}: {traceback.format_exc(limit=-3)}")

    for each in seen if args.show else ():
        print(f"{each.source} {each.entry.name}: {each.entry.refusal or 'a profile'}: {', '.join(each.differs)}")

    return _report(seen, crashes, unreadable)


@cache
def _build(engine: str) -> Capabilities:
    return build(FORK_STAGES if engine == "ik-fork" else UPSTREAM)


def _import(record: dict[str, str]) -> list[_Seen]:
    result = import_text(record["text"], _MACHINE, lambda text: read_yaml(text, record["id"]))
    found = []
    lines: dict[int, tuple[str, ...]] = {}
    for at, entry in enumerate(result.entries):
        rendered = None if entry.refusal else settle_on_build(entry, _build(entry.engine), "the recorded build")
        lines[at] = rendered.argv if rendered is not None else ()

    settle_names(result, {})
    for at, entry in enumerate(result.entries):
        before = canonical(entry.arguments)
        differs = tuple(differences(before, canonical(lines[at]))) if not entry.refusal else ()
        found.append(_Seen(record["id"], record["kind"], entry, differs))

    return found


def _report(seen: list[_Seen], crashes: int, unreadable: int) -> int:
    servers = [each for each in seen if not each.entry.refusal.startswith("it starts no llama-server")]
    single = [each for each in servers if "starts a router" not in each.entry.refusal]
    print(f"crashes {crashes}, sources that cannot be read {unreadable}")
    print(
        f"entries {len(seen)}: {len(seen) - len(servers)} start something else, {len(servers) - len(single)} a router"
    )
    shares = {}
    explained = 0
    for kind in ("all", *sorted({each.kind for each in seen})):
        chosen = [each for each in single if kind in ("all", each.kind)]
        made = [each for each in chosen if not each.entry.refusal]
        same = [each for each in made if not each.differs]
        shares[kind] = len(same) / len(chosen) if chosen else 0.0
        share = f"{len(same):4} mean the same ({shares[kind]:.0%})"
        print(f"{kind:12} {len(chosen):4} start one model: {len(made):4} profiles, {share}")

    print("profiles that differ in nothing else than:")
    for why, count in Counter(_why(each) for each in single if each.differs).most_common():
        print(f"  {count:4}  {why or 'something that the import changed or lost'}")
        explained += count if why else 0

    wide = sum(not each.differs and not each.entry.refusal for each in single) + explained
    print(f"the same, but for these: {wide} of {len(single)} ({wide / max(1, len(single)):.0%})")
    print("what differs most often:")
    for flag, count in Counter(flag for each in single for flag in dict.fromkeys(each.differs)).most_common(15):
        print(f"  {count:4}  {flag}")

    print("what is lost most often:")
    lost = Counter(
        re.split(r"[ =]", each.source)[0]
        for one in single
        for each in dict.fromkeys(one.entry.findings)
        if each.fate == "lost"
    )
    for flag, count in lost.most_common(15):
        print(f"  {count:4}  {flag}")

    silent = [
        (each.source, each.entry.name, flags)
        for each in single
        if not each.entry.refusal and (flags := _unaccounted(each.entry))
    ]
    print(f"entries with a flag that is neither kept nor reported: {len(silent)} {silent[:5] or ''}")
    untold = [(each.source, each.entry.name, flags) for each in single if (flags := _untold(each))]
    print(f"entries with a difference that the report does not tell: {len(untold)} {untold[:8] or ''}")
    for reason, count in Counter(each.entry.refusal for each in single if each.entry.refusal).most_common(8):
        print(f"no profile, {count}: {reason}")

    return 0 if not crashes and not silent and wide >= AIM * len(single) else 1


def _untold(each: _Seen) -> list[str]:
    """Return the differences that no finding but a `kept` one is about: the report hides them."""
    told = [word for one in each.entry.findings if one.fate != "kept" for word in one.source.split()]
    told += [f"--no-{word}" for word in told] + [word.replace("--", "--no-") for word in told if word[:2] == "--"]
    named = set(canonical([word for word in told if word.startswith("-")])) | set(told)
    settings = " ".join(one.source + one.text for one in each.entry.findings if one.fate != "kept")
    return [
        one
        for one in each.differs
        if (flag := one.split(" ")[0]) not in named
        and not any(f"`{key}`" in settings or key in settings for key in _settings(flag))
    ]


def _settings(flag: str) -> list[str]:
    found = settings_of_flags().get(flag)
    return [found] if found else []


def _why(each: _Seen) -> str:
    reasons = [reason_for(difference) for difference in each.differs]
    return " or ".join(sorted(set(reasons))) if all(reasons) else ""


def _unaccounted(entry: ImportEntry) -> list[str]:
    """Return the flags of the source that no finding names."""
    named = {_flag(word) for each in entry.findings for word in each.source.split()}
    flags = {_flag(word) for word in entry.arguments if re.match(r"--?[A-Za-z]", word)}
    return sorted(flags - named)


def _flag(word: str) -> str:
    return word.partition("=")[0].replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
