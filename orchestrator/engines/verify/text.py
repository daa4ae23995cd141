"""The text that engines are compared on: some thousand tokens of prose, code, numbers and other languages."""

from __future__ import annotations

from orchestrator.engines.known.text import TEXT

_MORE = """\
A short report on the water of three wells follows. The first well is 41 metres deep and gives 120 litres an hour; the
second is 38.5 metres deep and gives 96; the third was closed in 1987 because its pump had rusted through. Their water
was measured on Monday, Tuesday, Wednesday and Thursday, always at noon, and the table below has the means.

| well | depth in m | litres per hour | pH  |
|------|------------|-----------------|-----|
| 1    | 41.0       | 120             | 7.2 |
| 2    | 38.5       | 96              | 6.9 |
| 3    | 44.2       | 0               | -   |

def mean(values):
    \"\"\"Return the arithmetic mean of a list of numbers.\"\"\"
    if not values:
        raise ValueError("mean of an empty list")

    total = 0.0
    for value in values:
        total += value

    return total / len(values)


def variance(values):
    centre = mean(values)
    return mean([(value - centre) ** 2 for value in values])

The same in another language, as somebody asked for it: le puits est profond, l'eau est claire, et la pompe est neuve.
Der Brunnen ist tief, das Wasser ist klar, und die Pumpe ist neu. El pozo es profundo y el agua es clara.

{"wells": [{"id": 1, "depth_m": 41.0, "open": true}, {"id": 2, "depth_m": 38.5, "open": true},
 {"id": 3, "depth_m": 44.2, "open": false}], "measured": "at noon", "days": 4}

Question: what is the capital of France? Answer: the capital of France is Paris. Question: what is the capital of Italy?
Answer: the capital of Italy is Rome. Question: what is the capital of Spain? Answer: the capital of Spain is Madrid.
Question: how many days has a week? Answer: a week has seven days. Question: which season follows the winter? Answer:
spring follows the winter, then comes summer, and after the summer comes autumn. Count from one to twelve: one, two,
three, four, five, six, seven, eight, nine, ten, eleven, twelve. Now count back: twelve, eleven, ten, nine, eight,
seven, six, five, four, three, two, one. The letters of the alphabet are a b c d e f g h i j k l m n o p q r s t u v w x
y z.

"""

READ = _MORE + TEXT
"""Written for this project; changing it makes older results incomparable."""

PIECES = (6, 2, 25, 30, 31, 1, 60, 17, 110, 40, 24, 130, 160)
"""Words by which the text is read on: below and above the sizes at which kernels change, and small steps."""


def prefixes() -> list[str]:
    """Return the beginnings of the text that end where the pieces do."""
    words = READ.split(" ")
    ends = [sum(PIECES[: index + 1]) for index in range(len(PIECES))]
    return [" ".join(words[:end]) for end in ends]
