"""The layout of upstream's `--help` (`common_arg::to_string` and `common_params_print_usage` in `common/arg.cpp`)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.engines.embedded.options import Option

_INDENT = 40
_LINE = 70
_FIRST = 7

_SECTIONS = ("common", "sampling", "speculative", "example-specific")


def help_text(options: Sequence[Option]) -> str:
    """Four sections; flags at column 0, descriptions at column 40."""
    sections = []
    for name in _SECTIONS:
        entries = "".join(entry(option) for option in options if option.section == name)
        sections.append(f"----- {name} params -----\n\n{entries}")

    return "\n\n".join(sections)


def entry(option: Option) -> str:
    flags = (*option.flags, *option.off)
    left = flags[0]
    if len(flags) > 1:
        left = f"{flags[0]}, ".ljust(_FIRST) + ", ".join(flags[1:])

    if option.hint:
        left += f" {option.hint}"

    gap = "\n" + " " * _INDENT if len(left) > _INDENT - 3 else " " * (_INDENT - len(left))
    lines = [line for paragraph in option.doc.split("\n") for line in _wrapped(paragraph)]
    return left + gap + ("\n" + " " * _INDENT).join(lines) + "\n"


def _wrapped(paragraph: str) -> list[str]:
    lines = [""]
    for word in paragraph.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _LINE:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word

    return lines
