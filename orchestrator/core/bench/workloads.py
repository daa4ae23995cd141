"""The prompts that a bench asks, all of our own words.

`mtp` has the shape of the nine-prompt workload by which MTP is compared in public: the same tasks, lengths and limits,
so that figures can be set side by side; its texts are others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

TOKENS = 192
SEED = 42


@dataclass(frozen=True, slots=True)
class BenchPrompt:
    """One message of a user."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts under a name.

    :param shared: a text that each prompt begins with, as turns of one conversation do; it is in the engine's cache when
        they are asked. Such prompts are asked as clients ask: with the profile's own sampling, and with the cache
    """

    name: str
    prompts: tuple[BenchPrompt, ...]
    shared: str = ""

    @property
    def digest(self) -> str:
        """What tells it from another one of this name: a file may have changed."""
        text = "\0".join([*(f"{each.name}\0{each.text}" for each in self.prompts), *filter(None, [self.shared])])
        return sha256(text.encode()).hexdigest()[:16]


def _workload(name: str, texts: Mapping[str, str]) -> Workload:
    return Workload(name, tuple(BenchPrompt(key, text) for key, text in texts.items()))


_ENDPOINT = """\
from fastapi import FastAPI, HTTPException
import psycopg2, psycopg2.extras, json, time

app = FastAPI()
DSN = "dbname=shop user=shop password=shop host=db"

@app.get("/customers/{customer_id}/orders")
async def orders_of(customer_id: str, limit: int = 500, only_open: bool = False):
    connection = psycopg2.connect(DSN)
    cursor = connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
    cursor.execute("SELECT * FROM customers WHERE id = '" + customer_id + "'")
    customer = cursor.fetchone()
    if customer is None:
        raise HTTPException(404, "no such customer")

    cursor.execute("SELECT * FROM orders WHERE customer_id = '%s' ORDER BY created_at DESC" % customer_id)
    found = []
    for order in cursor.fetchall():
        if only_open and order["state"] != "open":
            continue
        cursor.execute("SELECT * FROM order_lines WHERE order_id = %s", (order["id"],))
        lines = cursor.fetchall()
        total = 0.0
        for line in lines:
            cursor.execute("SELECT * FROM articles WHERE id = %s", (line["article_id"],))
            article = cursor.fetchone()
            line["title"] = article["title"]
            line["price"] = float(article["price"]) * (1 - float(line["discount"] or 0))
            total = total + line["price"] * line["quantity"]
            time.sleep(0.001)
        order["lines"] = lines
        order["total"] = round(total, 2)
        order["customer"] = json.loads(json.dumps(customer, default=str))
        found.append(order)
        if len(found) == limit:
            break

    cursor.execute("UPDATE customers SET last_seen = now() WHERE id = '" + customer_id + "'")
    connection.commit()
    return {"customer": customer["name"], "count": len(found), "orders": json.loads(json.dumps(found, default=str))}

@app.get("/reports/turnover")
async def turnover(year: int):
    connection = psycopg2.connect(DSN)
    cursor = connection.cursor()
    months = {}
    cursor.execute("SELECT id, created_at FROM orders")
    for number, created in cursor.fetchall():
        if created.year != year:
            continue
        cursor.execute("SELECT quantity, article_id FROM order_lines WHERE order_id = " + str(number))
        for quantity, article in cursor.fetchall():
            cursor.execute("SELECT price FROM articles WHERE id = " + str(article))
            months[created.month] = months.get(created.month, 0) + quantity * cursor.fetchone()[0]
    return months
"""

MTP = _workload(
    "mtp",
    {
        "code_python": "Write a Python function `fib(n)` that keeps what it has computed, with a docstring. Code only.",
        "code_cpp": "Write a small C++17 function template that limits a value to a range, without using std::clamp.",
        "explain_concept": "In three short paragraphs, explain to a programmer how speculative decoding works and when it pays.",
        "summarize": "Sum this up in two sentences: The lighthouse on the northern cape was built in 1841 after three ships were "
        "lost in one winter. Its keeper recorded the weather every hour for fifty years, and his books later became "
        "the longest unbroken series of its kind on that coast.",
        "qa_factual": "Q: Why does the sky look red at sunset?\nA:",
        "translation": "Translate into French: The quick brown fox jumps over the lazy dog.",
        "creative_short": "Write a poem of four lines about rain in a city.",
        "stepwise_math": "A slow train leaves a town at 9:00 and travels at 60 km/h. A fast train follows on the same line at 10:30 "
        "and travels at 90 km/h. When does it catch up, and how far from the town? Go step by step.",
        "long_code_review": "Review this service, which has become slow. Name the problems by their weight, say for each what "
        f"it costs and how to correct it, and end with the order in which you would go about it.\n\n```python\n{_ENDPOINT}```",
    },
)

CODE = _workload(
    "code",
    {
        "python_lru": "Write a Python class for a cache of bounded size that drops what was used longest ago. Explain each method.",
        "rust_parse": "Write a Rust function that parses `key=value` lines into a map and returns an error with the line number.",
        "sql_window": "Write a SQL query that lists, for each customer, the order with the largest total in each month. Explain it.",
        "bash_rotate": "Write a bash script that keeps the newest seven files of a directory and compresses older ones. Comment it.",
        "typescript_debounce": "Write a typed `debounce` in TypeScript with a way to cancel it, and a test for it.",
        "review": f"What is wrong with this code? Answer as a list.\n\n```python\n{_ENDPOINT[:900]}```",
    },
)

CHAT = _workload(
    "chat",
    {
        "explain": "Explain to a curious twelve-year-old how a refrigerator keeps food cold. Use everyday examples.",
        "advice": "I have two hours a week to learn to play the guitar. Make a plan for three months and give reasons for it.",
        "story": "Tell the beginning of a story about a clockmaker who finds a clock that runs backwards.",
        "compare": "Compare travelling by night train and by plane within a continent: cost, time, comfort and climate.",
        "history": "Describe how printing with movable type changed the spreading of news, with examples from several countries.",
        "maths": "Explain, with numbers, why paying back a loan a little faster saves so much interest.",
    },
)


def _records(count: int, offset: int) -> str:
    """Return a table of a warehouse that is long, the same each time, and never says the same twice."""
    places = ("Aarhus", "Bergen", "Cadiz", "Delft", "Esbjerg", "Faro", "Ghent")
    goods = ("copper wire", "oak boards", "glass jars", "linen", "ball bearings", "paper rolls", "lamp oil", "rope")
    return "\n".join(
        f"{k + 1}. On day {(k * 7 + offset) % 365 + 1} the warehouse in {places[(k * 3 + offset) % 7]} sent "
        f"{(k * 37 + offset * 11) % 900 + 20} units of {goods[(k * 5 + offset) % 8]} to "
        f"{places[(k * 4 + offset + 1) % 7]}, and {(k * 13 + offset) % 40} of them were returned."
        for k in range(count)
    )


LONG = _workload(
    "long",
    {
        f"records_{offset}": f"{_records(60, offset)}\n\n{question}"
        for offset, question in enumerate(
            (
                "Which warehouse sent the most goods, and what does that say about the year?",
                "Describe the three most unusual records and why they stand out.",
                "Write a report of these records for the management, in prose.",
                "Which goods were returned most often? Argue from the records.",
                "Group the records by the place that they were sent to, and comment on each group.",
                "Write a letter that complains about the returns, and refers to the records.",
            )
        )
    },
)

WORKLOADS: Mapping[str, Workload] = {each.name: each for each in (MTP, CODE, CHAT, LONG)}

WARM_UP = BenchPrompt("warm-up", "Count from one to fifty in words, and then say what you noticed about the words.")
WARM_UP_TOKENS = 64


def request_body(model: str, prompt: BenchPrompt, tokens: int) -> dict[str, object]:
    """Return a chat request whose sampling is said in full: what a server's own defaults are changes nothing.

    Greedy, at a fixed length, and nothing from the cache: two engines then do the same work.
    """
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt.text}],
        "max_tokens": tokens,
        "seed": SEED,
        "temperature": 0,
        "top_k": 1,
        "top_p": 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "ignore_eos": True,
        "cache_prompt": False,
        "stream": True,
    }


def workload_body(model: str, workload: Workload, prompt: BenchPrompt, tokens: int) -> dict[str, object]:
    """Return the request for a prompt of a workload, or for the warm-up before it."""
    if not workload.shared:
        return request_body(model, prompt, tokens)

    together = BenchPrompt(prompt.name, f"{workload.shared}\n\n{prompt.text}")
    return {**pass_body(model, together, tokens), "ignore_eos": True, "cache_prompt": True}


def pass_body(model: str, prompt: BenchPrompt, tokens: int) -> dict[str, object]:
    """Return the request of a single pass as published figures are made: the server decides what is not said here."""
    message = {"role": "user", "content": prompt.text}
    return {"model": model, "messages": [message], "max_tokens": tokens, "seed": SEED, "stream": True}


def filling(words: int, *, salt: int) -> str:
    """Return a text of about so many words; another one for each salt, so that no cache holds its beginning."""
    lines, count = [f"Report {salt}."], 2
    while count < words:
        line = _records(1, len(lines) * 31 + salt * 7)
        lines.append(line)
        count += len(line.split())

    return " ".join(" ".join(lines).split()[: max(words, 1)])


def deep_prompt(words: int, *, salt: int) -> BenchPrompt:
    """Return a prompt of about so many words; another one for each salt."""
    return BenchPrompt(f"depth_{words}_{salt}", f"{filling(words - 8, salt=salt)}\n\nDescribe what these records tell.")


def chosen_rows(prompts: Sequence[BenchPrompt], most: int) -> tuple[BenchPrompt, ...]:
    """Return at most so many prompts of a data set, evenly spread over it: the same each time."""
    count = min(len(prompts), most)
    return tuple(prompts[k * len(prompts) // count] for k in range(count))
