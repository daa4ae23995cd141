from __future__ import annotations

from orchestrator.core.terminal import neutralise, neutralise_lines, quote_text


def test_sequences_are_taken_out_and_other_control_characters_are_shown() -> None:
    assert neutralise("\x1b[31mred\x1b[0m \x1b]0;title\x07\x07") == "red ␇"
    assert neutralise("plain ü\ttab") == "plain ü\ttab"


def test_only_a_text_of_lines_keeps_its_line_ends() -> None:
    assert neutralise("a\nb") == "a␊b"
    assert neutralise_lines("a\x07\nb") == "a␇\nb"


def test_a_message_quotes_what_is_printable_as_it_is_and_escapes_the_rest() -> None:
    assert quote_text("ü\x1b[31m\n\u202e") == "ü\\x1b[31m\\n\\u202e"


def test_a_message_quotes_no_more_than_it_has_room_for() -> None:
    assert quote_text("x" * 60, 60) == "x" * 60
    assert quote_text("x" * 61, 60) == "x" * 57 + "..."
