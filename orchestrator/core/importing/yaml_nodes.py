"""A YAML document as text with lines: scalars stay as they are written, so that `on` is a word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_INTEGER = re.compile(r"[-+]?\d+")
_NUMBER = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")


@dataclass(slots=True)
class YamlNode:
    """One node: a text, a list or a mapping.

    :param line: where it begins, from 1
    :param last: the last line that belongs to it
    :param key_line: where its key stands, in a mapping
    :param plain: a text without quotes, which may be a number
    """

    line: int
    last: int
    text: str | None = None
    plain: bool = True
    items: list[YamlNode] | None = None
    fields: dict[str, YamlNode] | None = None
    key_line: int = 0
    block: bool = field(default=False)

    def get(self, key: str) -> YamlNode | None:
        return (self.fields or {}).get(key)

    def words(self) -> list[str]:
        """The texts of a list; of a single text that alone."""
        if self.text is not None:
            return [self.text] if self.text else []

        return [each.text for each in self.items or [] if each.text is not None]

    def children(self) -> Iterator[tuple[str, YamlNode]]:
        yield from (self.fields or {}).items()

    def value(self) -> Any:
        """The value as JSON has it; `on` and `yes` are words, as in YAML 1.2."""
        if self.fields is not None:
            return {key: node.value() for key, node in self.fields.items()}

        if self.items is not None:
            return [node.value() for node in self.items]

        text = self.text or ""
        if not self.plain:
            return text

        if _INTEGER.fullmatch(text):
            return int(text)

        if _NUMBER.fullmatch(text):
            return float(text)

        return {"true": True, "True": True, "false": False, "False": False, "null": None, "~": None, "": None}.get(
            text, text
        )

    def shown(self) -> str:
        """The value in one line, for a report; of a mapping the keys alone, as a secret may stand in it."""
        if self.text is not None:
            return self.text

        parts = [each.shown() for each in self.items or []] if self.fields is None else list(self.fields)
        return ", ".join(parts)
