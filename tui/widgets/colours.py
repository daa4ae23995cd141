"""Styles for the roles of a line in the theme that is chosen.

Not Textual's component classes: each costs every widget that has it at every change of styles, and ten of them on ten
widgets were a tenth of a second of the start.
"""

from __future__ import annotations

from functools import lru_cache

from rich.style import Style
from textual.app import App
from textual.color import Color
from textual.widget import Widget

from tui.text import Role

_VARIABLES: dict[Role, str] = {
    "good": "text-success",
    "warn": "text-warning",
    "bad": "text-error",
    "accent": "text-primary",
    "engine": "primary",
    "others": "text-secondary",
    "strong": "foreground",
    "dim": "foreground",
    "free": "foreground",
}
_SHARES: dict[Role, float] = {"dim": 0.6, "free": 0.3}
"""The share of the colour that is left on the background, 0 to 1."""
_BOLD = ("strong", "warn", "bad")
_CURSOR_SHARE = 0.3


class Palette:
    """The styles for one widget as it is now."""

    __slots__ = ("_background", "_base", "_colours")

    def __init__(self, widget: Widget) -> None:
        self._base = widget.rich_style
        self._background = widget.background_colors[1]
        self._colours = _colours(widget.app.theme, widget.app)

    def role(self, role: Role) -> Style:
        """The style of a span, background included."""
        return self._base + _style(self._colours, role, self._background) if role else self._base

    @property
    def cursor(self) -> Style:
        """The style that is laid over the line with the cursor."""
        return _cursor(self._colours, self._background)


@lru_cache(maxsize=4)
def _colours(theme: str, app: App[None]) -> tuple[tuple[str, str], ...]:
    variables = app.get_css_variables()
    return tuple((name, variables[name]) for name in sorted({*_VARIABLES.values(), "foreground"}))


@lru_cache(maxsize=256)
def _style(colours: tuple[tuple[str, str], ...], role: Role, background: Color) -> Style:
    colour = Color.parse(dict(colours)[_VARIABLES[role]])
    share = _SHARES.get(role)
    if colour.ansi is not None or background.ansi is not None:  # the terminal's own colours cannot be mixed
        return Style(color=colour.rich_color, dim=share is not None, bold=role in _BOLD)

    if share is not None:
        colour = background.blend(colour, share, alpha=1.0)

    return Style(color=colour.rich_color, bold=role in _BOLD)


@lru_cache(maxsize=16)
def _cursor(colours: tuple[tuple[str, str], ...], background: Color) -> Style:
    colour = Color.parse(dict(colours)["primary"])
    if colour.ansi is not None or background.ansi is not None:
        return Style(reverse=True)

    return Style(bgcolor=background.blend(colour, _CURSOR_SHARE, alpha=1.0).rich_color)
