"""A small model whose output is known: its text, the probabilities of its tokens, and the drafts that it accepts.

Every block's output projections are zero, so that the hidden state stays the embedding of the last token, and that is
one-hot. The output matrix then is a table: the logits of state `s` are its column `s`, times the height of the one-hot
after the final norm (16, the root of the width). With log p / 16 in it, the model is a Markov chain over the pieces of
`known_text.TEXT`. In the draft head (MTP) `eh_proj` is [P | 0]: P moves some states to another state's row, and each of
those drafts is wrong. So acceptance is a number that can be counted, not estimated.

A whole run is checked with it: an engine that is fast but wrong does not print this text.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.adapters.gguf.writer import write_gguf
from orchestrator.engines.known.layout import WIDTH, fields, tensors
from orchestrator.engines.known.text import TEXT, cut

Architecture = Literal["qwen35moe", "llama"]

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
BYTES = 256
EOS = BYTES + 1

_MAIN = 0.75
"""Probability of the text's own next piece where others could follow as well."""

_ENDS = 0.98
"""Probability that an answer ends where the text does: with `ignore_eos`, the rest has the text begin again."""

_DRAFT_TOP_K = 10
"""The drafter's own sampler keeps so many candidates, and `p_min` is compared with the share among them."""


@dataclass(frozen=True, slots=True)
class DraftCount:
    """Tokens drafted and accepted during a generation, as `timings.draft_n` and `draft_n_accepted` count them."""

    drafted: int
    accepted: int

    @property
    def acceptance(self) -> float:
        return self.accepted / self.drafted if self.drafted else 0.0


@dataclass(frozen=True, slots=True)
class KnownModel:
    """The model's tables.

    :param vocabulary: the text of each token: the 256 bytes (latin-1 here), the special tokens, the pieces
    :param state: token to state, the dimension that is hot in its embedding
    :param rows: state to the tokens that may follow, with their probabilities
    :param draft_rows: state to the state whose row the draft head uses instead
    """

    architecture: Architecture
    vocabulary: tuple[str, ...]
    state: tuple[int, ...]
    rows: tuple[Mapping[int, float], ...]
    draft_rows: tuple[int, ...]

    def last_token(self, prompt: str) -> int:
        """The token a prompt ends with: the tokenizer has no merges, so text becomes bytes."""
        for index, text in enumerate(SPECIAL):
            if prompt.endswith(text):
                return BYTES + index

        return prompt.encode()[-1]

    def greedy_tokens(self, prompt: str, count: int, *, ignore_eos: bool = False) -> list[int]:
        """The tokens at temperature 0; fewer than `count` where the model stops, unless that is ignored."""
        tokens: list[int] = []
        token = self.last_token(prompt)
        while len(tokens) < count:
            token = self._best(self.state[token], ignore_eos)
            if token == EOS:
                break

            tokens.append(token)

        return tokens

    def tokens_of(self, prompt: str, text: str) -> list[int] | None:
        """The tokens of an answer; None where it is no text that the model can give."""
        tokens: list[int] = []
        token = self.last_token(prompt)
        while text:
            fits = [each for each in self.rows[self.state[token]] if text.startswith(self.vocabulary[each])]
            if not fits:
                return None

            token = max(fits, key=lambda each: len(self.vocabulary[each]))
            tokens.append(token)
            text = text[len(self.vocabulary[token]) :]

        return tokens

    def greedy_text(self, prompt: str, count: int, *, ignore_eos: bool = False) -> str:
        return "".join(self.vocabulary[token] for token in self.greedy_tokens(prompt, count, ignore_eos=ignore_eos))

    def drafting(self, prompt: str, count: int, draft_max: int, p_min: float = 0.0) -> DraftCount:
        """Drafts and acceptances while `count` tokens are generated at temperature 0."""
        return self.drafting_along(self.greedy_tokens(prompt, count), count, draft_max, p_min)

    def drafting_along(self, truth: Sequence[int], count: int, draft_max: int, p_min: float = 0.0) -> DraftCount:
        """Drafts and acceptances while these tokens are generated, of `count` that were asked for.

        The loop is llama-server's: the first token comes from the prompt; each step drafts at most `draft_max` tokens,
        never more than are still wanted beside the target's own, stops at the first below `p_min`, and keeps the prefix
        that the target agrees with plus one token of the target's.
        """
        drafted = accepted = 0
        done = 1
        while 0 < done < len(truth):
            draft = self._draft(truth[done - 1], min(draft_max, count - done - 1), p_min)
            right = 0
            while right < len(draft) and draft[right] == truth[done + right]:
                right += 1

            drafted += len(draft)
            accepted += right
            done += right + 1

        return DraftCount(drafted, accepted)

    def _draft(self, token: int, limit: int, p_min: float) -> list[int]:
        draft: list[int] = []
        while len(draft) < limit:
            row = self.draft_rows[self.state[token]]
            token = self._best(row)
            candidates = sorted(self.rows[row].values(), reverse=True)[:_DRAFT_TOP_K]
            if candidates[0] / sum(candidates) < p_min:
                break

            draft.append(token)

        return draft

    def _best(self, state: int, ignore_eos: bool = False) -> int:
        row = self.rows[state]
        return max(row, key=lambda token: 0.0 if ignore_eos and token == EOS else row[token])


def known_model(
    architecture: Architecture = "qwen35moe",
    *,
    draft_accuracy: float = 0.8,
    stops: bool = False,
    seed: int = 1,
    text: str = TEXT,
) -> KnownModel:
    """Make the tables.

    :param draft_accuracy: share of the states whose greedy draft is right
    :param stops: end the answer with the text, unless the end-of-text token is ignored; otherwise the text begins again
    :param seed: which drafts are wrong
    :raises ValueError: when the text cannot be cut into at most WIDTH pieces of two bytes or more
    """
    pieces = cut(text)
    most = WIDTH - stops  # the state before the text is one more, where that is not the one behind it
    if not 2 <= len(pieces) <= most or any(len(piece) < 2 or not piece.isascii() for piece in pieces):
        raise ValueError(
            f"the text has {len(pieces)} pieces; allowed are 2 to {most}, each ASCII and not one character"
        )

    vocabulary = (*(bytes([byte]).decode("latin-1") for byte in range(BYTES)), *SPECIAL, *pieces)
    count = len(pieces)
    rows = _rows(pieces, BYTES + len(SPECIAL), stops)
    begin = len(rows) - 1
    sentence_ends = [index for index, piece in enumerate(pieces) if _ends_sentence(piece)] or [count - 1]
    by_byte = [begin if byte == 10 else _alias(byte, sentence_ends, stops, count) for byte in range(BYTES)]
    state = (*by_byte, *(begin for _ in SPECIAL), *range(count))
    return KnownModel(architecture, vocabulary, state, rows, _draft_rows(rows, draft_accuracy, seed))


def write_known_model(
    path: str,
    architecture: Architecture = "qwen35moe",
    *,
    draft_accuracy: float = 0.8,
    stops: bool = False,
    seed: int = 1,
    layers: int = 4,
    context_length: int = 32768,
) -> KnownModel:
    """Write the model as GGUF, a few MB.

    :param layers: blocks before the MTP block (for `llama`: all blocks)
    :return: its tables
    """
    model = known_model(architecture, draft_accuracy=draft_accuracy, stops=stops, seed=seed)
    write_gguf(
        path,
        fields(architecture, model.vocabulary, layers=layers, context_length=context_length, eos=EOS),
        tensors(architecture, layers, model.state, _logits(model), model.draft_rows),
    )
    return model


def _rows(pieces: tuple[str, ...], first: int, stops: bool) -> tuple[Mapping[int, float], ...]:
    count = len(pieces)
    following: dict[str, list[int]] = {}
    for index, piece in enumerate(pieces):
        following.setdefault(_ending(piece), []).append(first + (index + 1) % count)

    rows: list[Mapping[int, float]] = []
    for index, piece in enumerate(pieces):
        main = first + (index + 1) % count
        others = [token for token in following[_ending(piece)] if token != main]
        if stops and index == count - 1:
            rows.append({EOS: _ENDS, main: 1 - _ENDS})
        elif others:
            rows.append({main: _MAIN, **{token: (1 - _MAIN) / len(others) for token in others}})
        else:
            rows.append({main: 1.0})

    if stops:
        rows.append({first: 1.0})

    return tuple(rows)


def _ending(piece: str) -> str:
    """Return what the next piece depends on: the last word, or that a sentence is over."""
    return "." if _ends_sentence(piece) else piece.split()[-1].lower()


def _ends_sentence(piece: str) -> bool:
    return piece.rstrip().endswith(".")


def _alias(byte: int, ends: list[int], stops: bool, count: int) -> int:
    """The state that a byte of the prompt leads to: the end of a sentence, so that a sentence follows."""
    usable = [end for end in ends if not (stops and end == count - 1)] or list(ends)
    return usable[byte % len(usable)]


def _draft_rows(rows: tuple[Mapping[int, float], ...], accuracy: float, seed: int) -> tuple[int, ...]:
    count = len(rows)
    chance = random.Random(seed)
    wrong = set(chance.sample(range(count), round((1 - accuracy) * count)))
    # Each state has its own successor, so that any other state's row is a wrong draft.
    return tuple((state + chance.randrange(1, count)) % count if state in wrong else state for state in range(count))


def _logits(model: KnownModel) -> list[Mapping[int, float]]:
    """Token to state to log p, without the floor."""
    table: list[dict[int, float]] = [{} for _ in model.vocabulary]
    for state, row in enumerate(model.rows):
        for token, probability in row.items():
            table[token][state] = math.log(probability)

    return list(table)
