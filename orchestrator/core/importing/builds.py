"""An imported profile on the build that is there: what it cannot say is taken out, and said."""

from __future__ import annotations

from orchestrator.core.dialect.capabilities import Capabilities
from orchestrator.core.dialect.extra_args import find_faults
from orchestrator.core.dialect.forms import looks_like_flag
from orchestrator.core.dialect.render import Rendered, UnsupportedError, render
from orchestrator.core.dialect.speculative import ROWS as SPECULATIVE_ROWS
from orchestrator.core.dialect.tables import PLACEMENT, REST
from orchestrator.core.importing.findings import ImportEntry, ImportFinding, drop, look, put
from orchestrator.core.importing.intents import settle
from orchestrator.core.profile.rules import refuse_combinations

_MOST_ROUNDS = 40
_SUBSTITUTES = {row.setting: row.substitutes for row in (*PLACEMENT, *SPECULATIVE_ROWS, *REST) if row.substitutes}
"""Setting to the nearest value for one that a build does not have."""


def settle_on_build(entry: ImportEntry, caps: Capabilities, build: str) -> Rendered | None:
    """Take out of the entry's document what this build cannot do; return the command line that is left.

    None with the reason in `refusal` where nothing helps.
    """
    for _ in range(_MOST_ROUNDS):
        profile = settle(entry)
        if profile is None:
            return None

        chosen = profile.for_engine(entry.engine)
        if find_faults(chosen.extra_args, caps):
            _drop_arguments(entry, caps, build)
            continue

        refuse_combinations(chosen, caps.kind)
        try:
            rendered = render(
                chosen, caps, build=build, model=profile.model, host="127.0.0.1", port="9999", api_key_file="/run/key"
            )
            _tell_notes(entry, rendered)
            return rendered
        except UnsupportedError as error:
            known = (line.partition(" = ") for line in error.details)
            found = next(((key, line) for key, _, line in known if look(entry.document, key) is not None), None)
            if found is None:
                entry.refusal = "; ".join(error.details)
                return None

            value = drop(entry.document, found[0])
            nearest = _SUBSTITUTES.get(found[0], {}).get(str(value))
            if nearest is None:
                entry.add("lost", f"{found[0]} = {value}", found[1])
            else:
                put(entry.document, found[0], nearest)
                entry.add("changed", f"{found[0]} = {value}", f"written {nearest}: {found[1]}")

    entry.refusal = f"{build} cannot do what it asks for"
    return None


def _tell_notes(entry: ImportEntry, rendered: Rendered) -> None:
    """Say of each setting that is passed otherwise than it is written, or not at all, where the source says it."""
    for note in rendered.notes:
        said, _, text = note.partition(": ")
        setting, equals, _ = said.partition(" = ")
        unset = said.removesuffix(" is unset")
        if not equals and unset != said and unset != "context.parallel":
            entry.add("changed", f"no `{unset}`", text)

        if not equals:
            continue

        kept = [each for each in entry.findings if each.fate == "kept" and each.text.partition(": ")[0] == setting]
        entry.findings = [each for each in entry.findings if each not in kept]
        for each in kept or [ImportFinding("changed", said, "")]:
            entry.add("changed", each.source, f"{setting}: {text}", each.line)


def _drop_arguments(entry: ImportEntry, caps: Capabilities, build: str) -> None:
    """Take single arguments out, each flag with its value."""
    table = entry.document["engine"][entry.engine]
    kept: list[str] = []
    words = list(table["extra_args"])
    while words:
        flag = [words.pop(0)]
        while words and not looks_like_flag(words[0]):
            flag.append(words.pop(0))

        faults = find_faults(flag, caps)
        if faults:
            source = " ".join(flag)
            line = next((each.line for each in entry.findings if each.source == source), None)
            entry.findings = [each for each in entry.findings if each.source != source]
            entry.add("lost", source, f"{build} cannot: {faults[0]}", line)
        else:
            kept += flag

    if kept:
        table["extra_args"] = kept
        return

    drop(entry.document, f"engine.{entry.engine}.extra_args")
