"""A small model whose every weight takes part in the answer, and whose probabilities can be computed without an engine.

The known model of `model.py` has blocks of zeros: an engine that multiplies wrongly still recites its text. Here each
state is a row of a Hadamard matrix (256 values of +1 and -1) instead of a one-hot, so that a matrix that moves states
is dense: H P H^T / 256. What a block does to such a row is known exactly:

- The gated unit. For signs e: silu(z e) = z tanh(z/2)/2 + e z/2, and the product of two rows of the matrix is a row
  again, that of their numbers' exclusive or. So with the gate z h_g and the value h_u the result is
  z tanh(z/2)/2 h_u + z/2 h_(u xor g). `ffn_down` takes the first to the next state, less the old one, and drops the
  second, whose number has the highest bit. Every block but the last moves the state in this way, for every token.
- Attention, in the last block: the bytes of the prompt are attended to, each alike, pieces hardly, and a byte's value
  is +1 or -1 by its class. Their mean is a balance of the whole prompt, in which each of its rows has its part, and it
  decides between the pieces that may follow.

With the weights as their blocks stand for them, the forward pass is computed here. What is left between that and an
engine is the rounding of activations.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from operator import mul
from typing import NamedTuple

from orchestrator.adapters.gguf.quantise import SUPER_BLOCK, block_of, quantise
from orchestrator.adapters.gguf.writer import TensorData, floats, write_gguf, zeros
from orchestrator.engines.known.layout import HEAD, HEADS, KV_HEADS, WIDTH, fields
from orchestrator.engines.known.model import BYTES, EOS, SPECIAL
from orchestrator.engines.known.text import TEXT, cut

LAYERS = 2
CONTEXT = 4096
_PIECES = 96
_BYTE_STATES = 8
"""The bytes share them: `byte % 8`; the lowest bit is the class."""

_FIRST_PIECE = BYTES + len(SPECIAL)
_STATES = _PIECES + _BYTE_STATES
_BALANCE = 127
"""The row that attention adds; 1 to _STATES are the states', 128 and more the gates'."""

_GATE = 4.0
_SCORE = 9.0
"""Of a byte, before the softmax; a piece has 0."""

_FOLLOWERS = (0.75, 0.2, 0.05)
_LIFT = 12.0
"""Added to the logits of followers; every other token has 0."""

_TILT = 4.0
"""What the balance adds to the logit of every second piece, and takes from the others'."""

_BALANCE_HEIGHT = 0.5

EXTRA = 64
"""Values that rows have beyond 256 where blocks are of 32: ten blocks a row, which many kernels end with other code."""

_LOUD_EVERY, _LOUD, _QUIET = 32, (0.6, 1.0), (0.2, 0.4)
"""As in real models a few activations of a row are several times larger than the others; the norms make them so."""

Matrix = Sequence[Sequence[float]]


class _TokenState(NamedTuple):
    """What the last block has of a token: its input, and what attention makes of it."""

    x: Sequence[float]
    query: Sequence[float]
    key: Sequence[float]
    value: Sequence[float]


@dataclass(frozen=True)
class CodedModel:
    """The model with its weights in one type.

    :param type: of `adapters.gguf.quantise.TYPES`
    :param norm: the weights of each norm, which the matrices behind it divide by
    :param blocks: matrix by name, as the bytes of its blocks; `weights` as what they stand for
    """

    type: str
    norm: Sequence[float]
    blocks: dict[str, list[bytes]]
    weights: dict[str, Matrix]

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        return (*(bytes([byte]).decode("latin-1") for byte in range(BYTES)), *SPECIAL, *cut(TEXT)[:_PIECES])

    @cached_property
    def _computed(self) -> dict[tuple[int, frozenset[tuple[int, int]]], list[float]]:
        return {}

    @cached_property
    def _seen(self) -> dict[int, _TokenState]:
        return {}

    def log_probabilities(self, prompt: str, tokens: Sequence[int] = ()) -> list[float]:
        """Return the log probability of each token after a prompt and the tokens drawn since."""
        last = _state_of(tokens[-1] if tokens else prompt.encode()[-1])
        counts = Counter(map(_state_of, [*prompt.encode(), *tokens]))
        # Attention does not see an order: what was computed for one text holds for each with the same tokens.
        asked = (last, frozenset(counts.items()))
        if asked not in self._computed:
            self._computed[asked] = self._log_probabilities(self._row(last), counts)

        return self._computed[asked]

    def _log_probabilities(self, last: _TokenState, counts: Mapping[int, int]) -> list[float]:
        rows = [self._row(state) for state in counts]
        mixed: list[float] = []
        for head in range(HEADS):
            at = head * KV_HEADS // HEADS * HEAD
            query = last.query[head * HEAD : (head + 1) * HEAD]
            scores = [_dot(query, row.key[at : at + HEAD]) / math.sqrt(HEAD) for row in rows]
            most = max(scores)
            shares = [count * math.exp(score - most) for count, score in zip(counts.values(), scores, strict=True)]
            total = sum(shares)
            columns = zip(*(row.value[at : at + HEAD] for row in rows), strict=True)
            mixed += [_dot(shares, column) / total for column in columns]

        added = _times(self.weights["attn_output"], mixed)
        final = self._normed([a + b for a, b in zip(last.x, added, strict=True)])
        # Bytes and special tokens never follow: their rows are zeros, in every type.
        logits = [0.0] * _FIRST_PIECE + _times(self.weights["output"][_FIRST_PIECE:], final)
        most = max(logits)
        norm = most + math.log(sum(math.exp(logit - most) for logit in logits))
        return [logit - norm for logit in logits]

    @cached_property
    def number_of(self) -> Mapping[str, int]:
        """The token of each text; a byte's is that of one character."""
        return {text: number for number, text in enumerate(self.vocabulary)}

    def _row(self, state: int) -> _TokenState:
        if state not in self._seen:
            x: list[float] = list(self.weights["token_embd"][_token_of(state)])
            for _ in range(LAYERS - 1):
                normed = self._normed(x)
                gate, up = _times(self.weights["ffn_gate"], normed), _times(self.weights["ffn_up"], normed)
                inner = [each / (1 + math.exp(-each)) * value for each, value in zip(gate, up, strict=True)]
                x = [a + b for a, b in zip(x, _times(self.weights["ffn_down"], inner), strict=True)]

            normed = self._normed(x)
            query, key, value = (_times(self.weights[name], normed) for name in ("attn_q", "attn_k", "attn_v"))
            self._seen[state] = _TokenState(x, query, key, value)

        return self._seen[state]

    def _normed(self, vector: Sequence[float]) -> list[float]:
        scale = 1 / math.sqrt(_dot(vector, vector) / len(vector) + 1e-6)
        return [value * scale * weight for value, weight in zip(vector, self.norm, strict=True)]


def coded_model(type: str, seed: int = 1) -> CodedModel:
    """Make the model; the tables are those of the seed, whatever the type. About a second of CPU."""
    chance = random.Random(seed + 1)
    extra = 0 if block_of(type) == SUPER_BLOCK else EXTRA
    norm = [chance.uniform(*(_QUIET if index % _LOUD_EVERY else _LOUD)) for index in range(WIDTH + extra)]
    blocks: dict[str, list[bytes]] = {}
    weights: dict[str, Matrix] = {}
    for name, rows in _matrices(seed).items():
        made = [quantise(_type_of(name, type), row) for row in _widened(name, rows, norm)]
        blocks[name] = [each.data for each in made]
        weights[name] = [list(each.values) for each in made]

    return CodedModel(type, norm, blocks, weights)


def _type_of(name: str, type: str) -> str:
    """Return the type of one matrix: the last one is better kept than the others, as in published files."""
    return "q6_K" if name == "output" and block_of(type) == SUPER_BLOCK else type


def write_coded_model(path: str, model: CodedModel) -> None:
    """Write the model as GGUF, one MB or less for types of four bits."""
    described = fields("llama", model.vocabulary, layers=LAYERS, context_length=CONTEXT, eos=EOS,
                       width=len(model.norm), rope_base=1e9)  # fmt: skip
    write_gguf(path, described, list(_tensors(model)))


def prompt_of(length: int, share: float, seed: int) -> str:
    """Return a prompt of so many letters, of which a share is of the class +1 (even code points); one token each."""
    chance = random.Random(seed)
    ups = round(length * share)
    letters = [chance.choice("bdfhjlnprtvxz") for _ in range(ups)]
    letters += [chance.choice("acegikmoqsuwy") for _ in range(length - ups)]
    chance.shuffle(letters)
    return "".join(letters)


def _tensors(model: CodedModel) -> Iterator[TensorData]:
    width = len(model.norm)
    norm = floats(model.norm)

    def matrix(name: str, stem: str) -> TensorData:
        shape = (len(model.weights[stem][0]), len(model.blocks[stem]))
        return TensorData(f"{name}.weight", shape, _type_of(stem, model.type), model.blocks[stem])

    yield matrix("token_embd", "token_embd")
    yield TensorData("output_norm.weight", (width,), "f32", [norm])
    yield matrix("output", "output")
    for layer in range(LAYERS):
        last = layer == LAYERS - 1
        name = f"blk.{layer}."
        yield TensorData(name + "attn_norm.weight", (width,), "f32", [norm])
        yield TensorData(name + "ffn_norm.weight", (width,), "f32", [norm])
        for stem in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            if last == stem.startswith("attn"):
                yield matrix(name + stem, stem)
            else:
                rows, columns = len(model.blocks[stem]), len(model.weights[stem][0])
                yield TensorData(f"{name}{stem}.weight", (columns, rows), "f16", zeros(columns * rows, "f16"))


@cache
def _matrices(seed: int) -> Mapping[str, list[list[float]]]:
    """Return the matrices by name, each as its rows; nobody changes them."""
    return dict(_each_matrix(random.Random(seed)))


def _each_matrix(chance: random.Random) -> Iterator[tuple[str, list[list[float]]]]:
    states = range(1, _STATES + 1)
    after = _permutation(states, chance)
    values = _permutation(states, chance)
    gates = dict(zip(states, chance.sample(range(128, 256), _STATES), strict=True))

    yield "token_embd", [_hadamard(_state_of(token)) for token in range(_FIRST_PIECE + _PIECES)]
    yield "ffn_up", _moving({state: [(values[state], 1.0)] for state in states})
    yield "ffn_gate", _moving({state: [(gates[state], _GATE)] for state in states})
    height = _GATE * math.tanh(_GATE / 2) / 2
    yield "ffn_down", _moving({values[state]: [(after[state], 1 / height), (state, -1 / height)] for state in states})

    final = {state: state for state in states}
    for _ in range(LAYERS - 1):
        final = {state: after[now] for state, now in final.items()}

    byte_states = [final[state] for state in range(_PIECES + 1, _STATES + 1)]
    classes = {state: 1.0 - 2.0 * (index % 2) for index, state in enumerate(byte_states)}
    strength = math.sqrt(_SCORE / (HEAD // 2) * math.sqrt(HEAD))
    # Positions turn the second half of a head by next to nothing (the base of RoPE is 1e9).
    still = [0.0] * (HEAD // 2) + [strength * chance.choice((-1, 1)) for _ in range(HEAD // 2)]
    yield "attn_q", _outer(still * HEADS, dict.fromkeys(final.values(), 1.0))
    yield "attn_k", _outer(still * KV_HEADS, dict.fromkeys(byte_states, 1.0))
    carried = [chance.choice((-1.0, 1.0)) * chance.uniform(0.5, 1.5) for _ in range(KV_HEADS * HEAD)]
    yield "attn_v", _outer(carried, classes)
    spread = [carried[head * KV_HEADS // HEADS * HEAD + at] for head in range(HEADS) for at in range(HEAD)]
    scale = _BALANCE_HEIGHT / _dot(spread, spread)
    yield "attn_output", [[scale * sign * value for value in spread] for sign in _hadamard(_BALANCE)]
    yield "output", _output_rows(final, chance)


def _output_rows(final: dict[int, int], chance: random.Random) -> list[list[float]]:
    first = _FIRST_PIECE
    logits: list[dict[int, float]] = [{} for _ in range(first + _PIECES)]
    for state, at in final.items():
        main = first + state % _PIECES
        others = chance.sample([token for token in range(first, first + _PIECES) if token != main], 2)
        for token, probability in zip((main, *others), _FOLLOWERS, strict=True):
            logits[token][at] = _LIFT + math.log(probability)

    for token in range(first, first + _PIECES):
        logits[token][_BALANCE] = (_TILT if token % 2 else -_TILT) / 2 / _BALANCE_HEIGHT

    return [_combined(row) for row in logits]


def _state_of(token: int) -> int:
    piece = token - _FIRST_PIECE
    return 1 + piece if piece >= 0 else 1 + _PIECES + token % _BYTE_STATES


def _token_of(state: int) -> int:
    """Return a token of a state; those of one state have one embedding."""
    return _FIRST_PIECE + state - 1 if state <= _PIECES else state - 1 - _PIECES


def _permutation(states: range, chance: random.Random) -> dict[int, int]:
    shuffled = list(states)
    chance.shuffle(shuffled)
    return dict(zip(states, shuffled, strict=True))


def _hadamard(number: int) -> list[float]:
    """Return a row of Sylvester's matrix: its value at `column` is the parity of the bits that both have."""
    return [1.0 - 2.0 * ((number & column).bit_count() % 2) for column in range(WIDTH)]


def _combined(parts: dict[int, float]) -> list[float]:
    """Return the vector whose product with each of these rows is the given number."""
    found = [0.0] * WIDTH
    for number, height in parts.items():
        found = [value + height * sign / WIDTH for value, sign in zip(found, _hadamard(number), strict=True)]

    return found


def _outer(left: Sequence[float], parts: dict[int, float]) -> list[list[float]]:
    row = _combined(parts)
    return [[height * value for value in row] for height in left]


def _moving(moves: dict[int, list[tuple[int, float]]]) -> list[list[float]]:
    """Return the matrix that takes each row's number to others: sum of height h_to h_from^T / 256."""
    # By columns of codes first, then each row of the matrix by a fast Walsh-Hadamard transform.
    rows: list[list[float]] = []
    for index in range(WIDTH):
        parts = [0.0] * WIDTH
        for source, targets in moves.items():
            parts[source] = sum(height * (1.0 - 2.0 * ((to & index).bit_count() % 2)) for to, height in targets)

        rows.append([value / WIDTH for value in _transformed(parts)])

    return rows


def _transformed(values: list[float]) -> list[float]:
    """Return the Walsh-Hadamard transform: sum over n of values[n] times the n-th row."""
    step = 1
    while step < len(values):
        for begin in range(0, len(values), 2 * step):
            for at in range(begin, begin + step):
                one, other = values[at], values[at + step]
                values[at], values[at + step] = one + other, one - other

        step *= 2

    return values


def _times(matrix: Matrix, vector: Sequence[float]) -> list[float]:
    return [_dot(row, vector) for row in matrix]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return float(sum(map(mul, one, other)))


def _widened(name: str, rows: list[list[float]], norm: Sequence[float]) -> list[list[float]]:
    """Repeat the first values of every vector at its end, and share what read them between the two places."""
    extra = len(norm) - WIDTH
    if name == "token_embd":
        return [row + row[:extra] for row in rows]

    if name in ("ffn_up", "ffn_gate", "ffn_down", "attn_output"):
        rows = rows + rows[:extra]

    if name == "attn_output":
        return rows

    if name == "ffn_up":  # what `ffn_down` reads has loud and quiet values as well
        rows = [[value * by for value in row] for row, by in zip(rows, norm, strict=True)]

    wide = [[value / 2 for value in row[:extra]] + row[extra:] + [value / 2 for value in row[:extra]] for row in rows]
    return [[value / by for value, by in zip(row, norm, strict=True)] for row in wide]
