"""The types of speculation that a profile asks for: one, or a chain of them."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.profile.settings import Value

NO_SPECULATION = ("none",)

NEED_DRAFT_MODEL = ("draft", "eagle3", "dflash", "dspark")

DRAFTERS = ("mtp", *NEED_DRAFT_MODEL)
"""Types that draft with a model or a head of it, of which an engine has one; the others look up n-grams."""


def speculation_types(settings: Mapping[str, Value]) -> tuple[str, ...]:
    """Return the types in the order of the chain; `("none",)` when nothing is drafted."""
    found = settings.get("speculative.type", "none")
    return tuple(str(each) for each in found) if isinstance(found, tuple) else (str(found),)


def speculates(settings: Mapping[str, Value]) -> bool:
    """Return whether anything is drafted."""
    return speculation_types(settings) != NO_SPECULATION


def drafts_with_mtp(settings: Mapping[str, Value]) -> bool:
    """Return whether MTP drafts, alone or in a chain."""
    return "mtp" in speculation_types(settings)
