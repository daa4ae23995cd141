"""A generated model with an answer for each situation that a client brings it into: a text, a call of a tool.

Its chat template looks at the conversation and ends the prompt with a letter; the model knows its last token alone, so
the letter chooses the answer. Each byte of a prompt is a token, so the template shows the beginnings of messages: the
50 kB that a coding agent sends would take minutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from orchestrator.adapters.gguf.writer import Field, write_gguf
from orchestrator.engines.known.layout import WIDTH, fields, tensors
from orchestrator.engines.known.model import BYTES, EOS, SPECIAL

LAYERS = 1
CONTEXT = 131072
_MIDDLE = BYTES + 2
"""The token behind which the middle is to be filled in; the special tokens have this use beside their own."""

_INFILL = [
    Field(f"tokenizer.ggml.{name}_token_id", "u32", BYTES + at)
    for at, name in enumerate(("fim_pre", "fim_suf", "fim_mid"))
]
_PIECE = 24
"""The most characters of an answer that one token stands for."""


class Answer(NamedTuple):
    """:param when: what the template asks of the conversation; the first answer whose condition holds is given"""

    when: str
    text: str


def write_answering_model(path: Path, answers: Sequence[Answer], infill: str) -> None:
    """Write the model as GGUF, 1 MB.

    :param infill: what it fills into the middle of a text
    :raises ValueError: when the answers need more states than it has
    """
    first = BYTES + len(SPECIAL)
    starts = [*range(ord("A"), ord("A") + len(answers)), _MIDDLE]
    cut = cut_answers([*(answer.text for answer in answers), infill])
    number = {piece: at for at, piece in enumerate(sorted({piece for pieces in cut for piece in pieces}))}
    rows = len(cut) + len(number)  # the state that each answer begins in, then that of each piece
    if rows > WIDTH:
        raise ValueError(f"the answers need {rows} states; there are {WIDTH}")

    vocabulary = (*(bytes([byte]).decode("latin-1") for byte in range(BYTES)), *SPECIAL, *number)
    state = [0] * first + [len(cut) + at for at in range(len(number))]
    follows: list[dict[int, float]] = [{} for _ in vocabulary]
    for index, (start, pieces) in enumerate(zip(starts, cut, strict=True)):
        state[start] = index
        states = [index, *(len(cut) + number[piece] for piece in pieces)]
        tokens = [*(first + number[piece] for piece in pieces), EOS]
        for before, token in zip(states, tokens, strict=True):
            follows[token][before] = math.log(1.0)

    described = fields("llama", vocabulary, layers=LAYERS, context_length=CONTEXT, eos=EOS)
    write_gguf(
        str(path),
        [replace(each, value=template(answers)) if _is_template(each) else each for each in described] + _INFILL,
        tensors("llama", LAYERS, state, follows, ()),
    )


def cut_answers(texts: Sequence[str]) -> list[list[str]]:
    """Cut each text into pieces, of which one that is in two places has the same text behind it in both.

    :raises ValueError: when there is no such cut
    """
    after: dict[str, str] = {}
    return [_cut(text, after) for text in texts]


def _cut(text: str, after: dict[str, str]) -> list[str]:
    pieces: list[str] = []
    while text:
        sizes = [size for size in range(min(_PIECE, len(text)), 1, -1) if len(text) - size != 1]
        fits = [text[:size] for size in sizes if after.get(text[:size], text[size:]) == text[size:]]
        if not fits:
            raise ValueError(f"no piece fits before {text!r}")

        pieces.append(fits[0])
        text = text[len(fits[0]) :]
        after[pieces[-1]] = text

    return pieces


def _is_template(field: Field) -> bool:
    return field.key == "tokenizer.chat_template"


def template(answers: Sequence[Answer]) -> str:
    """Return a template in the manner of Hermes, whose form of a call engines know, with the choice of the answer."""
    chosen = "".join(
        f"{{%- {'elif' if at else 'if'} {answer.when} -%}}{{{{- '{chr(ord('A') + at)}' -}}}}"
        for at, answer in enumerate(answers)
    )
    return _HERMES.replace("CHOSEN", chosen + "{%- endif -%}")


_HERMES = """\
{%- if tools %}<|im_start|>system
# Tools
{% for tool in tools %}{{ tool.function.name }}
{% endfor %}<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content[:1000] }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ (message.content or '')[:1000] }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% set last = messages[-1] %}CHOSEN{% endif %}"""
