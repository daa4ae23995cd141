"""Reads YAML 1.2 with the lines of its nodes, through `ruamel.yaml`."""

from __future__ import annotations

from typing import Any

from orchestrator.core.errors import UsageError
from orchestrator.core.importing.yaml_nodes import YamlNode

_MOST_DEPTH = 40
_MOST_NODES = 200_000


def read_yaml(text: str, file: str) -> YamlNode:
    """Return the root of a document; anchors and merge keys (`<<`) are resolved.

    :param file: its name in messages
    :raises UsageError: with the line, where the text is no YAML
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}" if mark is not None else file
        raise UsageError(
            f"{where}: {error.problem or 'it is no YAML'}", hint="a text editor with YAML shows it"
        ) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{file}: it is no YAML: {str(error).splitlines()[0][:200]}") from None

    if root is None:
        return YamlNode(1, 1, text="")

    return _NodeReader(file).node(root, 0)


class _NodeReader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.count = 0

    def node(self, raw: Any, depth: int) -> YamlNode:
        self.count += 1
        if depth > _MOST_DEPTH or self.count > _MOST_NODES:
            raise UsageError(f"{self.file}:{raw.start_mark.line + 1}: the document is nested too deeply")

        line, last = raw.start_mark.line + 1, raw.end_mark.line + 1
        kind = type(raw).__name__
        if kind == "MappingNode":
            return YamlNode(line, last, fields=self._fields(raw, depth))

        if kind == "SequenceNode":
            return YamlNode(line, last, items=[self.node(each, depth + 1) for each in raw.value])

        style = raw.style
        return YamlNode(line, last, text=str(raw.value), plain=style in (None, ""), block=style in ("|", ">"))

    def _fields(self, raw: Any, depth: int) -> dict[str, YamlNode]:
        own: dict[str, YamlNode] = {}
        merged: dict[str, YamlNode] = {}
        for key, value in raw.value:
            name = str(key.value) if type(key).__name__ == "ScalarNode" else "?"
            found = self.node(value, depth + 1)
            if name == "<<":
                for each in found.items or [found]:
                    merged = {**(each.fields or {}), **merged}

                continue

            found.key_line = key.start_mark.line + 1
            own[name] = found

        return {**merged, **own}
