"""Write the calibration and held-out text that the package ships.

``prose.txt`` and ``heldout.txt`` are paragraphs written for this project. To the first, templates
add what prose lacks: code, data files, logs, arithmetic and chat turns. The held-out split shares
neither paragraphs nor templates with the calibration split. Deterministic: run it again and the
files come out the same.

    python build_scripts/calibration/make.py
"""

# ruff: noqa: E501 (sentences and program text are kept whole)
from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "toolkit" / "quantize" / "data"
SAMPLES = 256

NAMES = [
    "Ana",
    "Bruno",
    "Chloe",
    "Dmitri",
    "Eva",
    "Farid",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Liam",
    "Mina",
    "Noor",
    "Omar",
    "Petra",
]
NOUNS = [
    "order",
    "invoice",
    "user",
    "ticket",
    "sensor",
    "parcel",
    "booking",
    "reading",
    "session",
    "report",
    "device",
    "entry",
]
FIELDS = [
    "total",
    "price",
    "weight",
    "length",
    "score",
    "count",
    "delay",
    "rating",
    "amount",
    "volume",
]
PLACES = [
    "Lisbon",
    "Oslo",
    "Nairobi",
    "Quito",
    "Hanoi",
    "Turin",
    "Leeds",
    "Osaka",
    "Perth",
    "Accra",
    "Riga",
    "Denver",
]
ITEMS = [
    "lamps",
    "chairs",
    "notebooks",
    "bottles",
    "tiles",
    "seeds",
    "candles",
    "cables",
    "hinges",
    "brushes",
]

Record = dict[str, object]


def _python(draw: random.Random) -> str:
    noun, field = draw.choice(NOUNS), draw.choice(FIELDS)
    limit = draw.randint(2, 90)
    return (
        f"def largest_{noun}s(items, limit={limit}):\n"
        f'    """Return the {noun}s whose {field} is above the limit, largest first."""\n'
        f"    chosen = [item for item in items if item.{field} > limit]\n"
        f"    chosen.sort(key=lambda item: item.{field}, reverse=True)\n"
        f"    return chosen\n\n\n"
        f"if __name__ == '__main__':\n"
        f"    for {noun} in largest_{noun}s(load_{noun}s('{noun}s.csv')):\n"
        f"        print({noun}.name, {noun}.{field})\n"
    )


def _javascript(draw: random.Random) -> str:
    noun, field = draw.choice(NOUNS), draw.choice(FIELDS)
    return (
        f"async function fetch{noun.title()}s(url) {{\n"
        f"  const response = await fetch(url);\n"
        f"  if (!response.ok) {{\n"
        f"    throw new Error(`could not load {noun}s: ${{response.status}}`);\n"
        f"  }}\n"
        f"  const {noun}s = await response.json();\n"
        f"  return {noun}s.reduce((sum, {noun}) => sum + {noun}.{field}, 0);\n"
        f"}}\n"
    )


def _sql(draw: random.Random) -> str:
    noun, field = draw.choice(NOUNS), draw.choice(FIELDS)
    return (
        f"SELECT city, COUNT(*) AS {noun}s, AVG({field}) AS mean_{field}\n"
        f"FROM {noun}s\nWHERE created_at >= '20{draw.randint(18, 25)}-0{draw.randint(1, 9)}-01'\n"
        f"GROUP BY city\nHAVING COUNT(*) > {draw.randint(3, 60)}\nORDER BY mean_{field} DESC;\n"
    )


def _shell(draw: random.Random) -> str:
    noun = draw.choice(NOUNS)
    days = draw.randint(2, 60)
    return (
        f"#!/bin/sh\n# Remove {noun} files older than {days} days and report what is left.\n"
        f'set -eu\ndir="${{1:-/var/lib/{noun}s}}"\n'
        f"find \"$dir\" -name '*.{noun}' -mtime +{days} -print -delete\n"
        f'echo "$(ls "$dir" | wc -l) {noun}s left in $dir"\n'
    )


def _c(draw: random.Random) -> str:
    field = draw.choice(FIELDS)
    return (
        f"double mean_{field}(const double *{field}s, size_t n)\n{{\n"
        f"    double sum = 0.0;\n    for (size_t i = 0; i < n; i++)\n"
        f"        sum += {field}s[i];\n    return n ? sum / (double)n : 0.0;\n}}\n"
    )


def _json_data(draw: random.Random) -> str:
    noun, field = draw.choice(NOUNS), draw.choice(FIELDS)
    rows = [
        {"id": draw.randint(100, 999), "name": draw.choice(NAMES), field: draw.randint(1, 500),
         "city": draw.choice(PLACES), "active": draw.random() < 0.5}
        for _ in range(3)
    ]  # fmt: skip
    return json.dumps({f"{noun}s": rows, "page": draw.randint(1, 9)}, indent=2) + "\n"


def _csv(draw: random.Random) -> str:
    field = draw.choice(FIELDS)
    lines = [f"date,city,{field}"]
    lines += [
        f"20{draw.randint(10, 25)}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d},"
        f"{draw.choice(PLACES)},{draw.uniform(1, 900):.2f}"
        for _ in range(6)
    ]
    return "\n".join(lines) + "\n"


def _yaml(draw: random.Random) -> str:
    noun = draw.choice(NOUNS)
    return (
        f"# Settings of the {noun} service\n{noun}s:\n  host: {draw.choice(PLACES).lower()}.example.org\n"
        f"  port: {draw.randint(1024, 60000)}\n  retries: {draw.randint(1, 9)}\n"
        f"  timeout_seconds: {draw.randint(5, 120)}\n  regions: [{', '.join(draw.sample(PLACES, 3))}]\n"
    )


def _log(draw: random.Random) -> str:
    noun = draw.choice(NOUNS)
    hour = draw.randint(0, 22)
    lines = []
    for step in range(5):
        level = draw.choice(("INFO", "INFO", "WARN", "ERROR"))
        text = draw.choice((f"{noun} {draw.randint(1, 999)} accepted", f"queue holds {draw.randint(1, 80)} {noun}s",
                            f"retrying {noun} {draw.randint(1, 999)} in {draw.randint(1, 30)} s",
                            f"connection to {draw.choice(PLACES).lower()} lost"))  # fmt: skip
        lines.append(f"{hour:02d}:{step * 11 % 60:02d}:{draw.randint(0, 59):02d} {level:5s} {text}")
    return "\n".join(lines) + "\n"


def _arithmetic(draw: random.Random) -> str:
    name, item = draw.choice(NAMES), draw.choice(ITEMS)
    boxes, each, price = draw.randint(3, 40), draw.randint(4, 24), draw.randint(2, 19)
    total = boxes * each
    return (
        f"{name} orders {boxes} boxes of {item} with {each} in each box. That makes {boxes} times "
        f"{each}, which is {total} {item}. At {price} euros apiece the whole order costs {total} "
        f"times {price}, or {total * price} euros."
    )


def _travel(draw: random.Random) -> str:
    start, end = draw.sample(PLACES, 2)
    speed, hours = draw.randint(4, 30) * 10, draw.randint(2, 12)
    return (
        f"A vehicle travels at {speed} kilometres an hour for {hours} hours. Distance is speed times "
        f"time, so it covers {speed * hours} kilometres. Whether that is enough to get from {start} "
        f"to {end} depends on the road, and on whether there is one."
    )


def _mail(draw: random.Random) -> str:
    name, other = draw.sample(NAMES, 2)
    noun, day = (
        draw.choice(NOUNS),
        draw.choice(["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]),
    )
    return (
        f"Subject: {noun} {draw.randint(100, 9999)}\n\nHello {name},\n\nthank you for sending the "
        f"{noun}. Two points are still open: the {draw.choice(FIELDS)} on the second page differs "
        f"from the one we agreed on, and the delivery to {draw.choice(PLACES)} has no date. Could "
        f"you let me know by {day}?\n\nKind regards\n{other}\n"
    )


def _steps(draw: random.Random) -> str:
    noun, item = draw.choice(NOUNS), draw.choice(ITEMS)
    return (
        f"How to check a delivery of {item}:\n\n1. Compare the number on the {noun} with the label.\n"
        f"2. Count the {item} and write the count on the list.\n3. Set aside whatever is damaged and "
        f"take a photograph of it.\n4. Sign only for what you have counted.\n5. File the {noun} under "
        f"the name of the supplier, not under the date.\n"
    )


def _chat_sum(draw: random.Random) -> Record:
    first, second = draw.randint(11, 99), draw.randint(11, 99)
    return _chat(
        f"What is {first} plus {second}, and is the result even?",
        f"{first} plus {second} is {first + second}, which is an "
        f"{'even' if (first + second) % 2 == 0 else 'odd'} number.",
    )


def _chat_convert(draw: random.Random) -> Record:
    celsius = draw.randint(-20, 60)
    return _chat(
        f"The thermometer says {celsius} degrees Celsius. What is that in Fahrenheit?",
        f"Multiply by nine, divide by five and add thirty-two: {celsius} degrees Celsius are "
        f"{celsius * 9 / 5 + 32:.1f} degrees Fahrenheit.",
    )


def _chat_rewrite(draw: random.Random) -> Record:
    name, item, place = draw.choice(NAMES), draw.choice(ITEMS), draw.choice(PLACES)
    return _chat(
        f"Make this sentence more polite: 'Send me the {item} to {place} now, {name}.'",
        f"Dear {name}, would you kindly send the {item} to {place} as soon as it is convenient? "
        "Thank you very much in advance.",
    )


def _chat_list(draw: random.Random) -> Record:
    things = draw.sample(ITEMS, 4)
    return _chat(
        f"Sort these words alphabetically: {', '.join(things)}.",
        "In alphabetical order:\n" + "\n".join(f"- {thing}" for thing in sorted(things)),
    )


def _chat_extract(draw: random.Random) -> Record:
    name, place, count, item = (draw.choice(NAMES), draw.choice(PLACES), draw.randint(2, 60),
                                draw.choice(ITEMS))  # fmt: skip
    return _chat(
        f"Extract the facts as JSON: {name} in {place} ordered {count} {item}.",
        json.dumps({"customer": name, "city": place, "quantity": count, "item": item}),
        system="You answer with JSON and nothing else.",
    )


def _chat(question: str, answer: str, system: str | None = None) -> Record:
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


TEMPLATES: tuple[Callable[[random.Random], str | Record], ...] = (
    _python, _javascript, _sql, _shell, _c, _json_data, _csv, _yaml, _log, _arithmetic, _travel,
    _mail, _steps, _chat_sum, _chat_convert, _chat_rewrite, _chat_list, _chat_extract,
)  # fmt: skip

HELDOUT_RECORDS: tuple[Record, ...] = (
    {
        "text": "class Stack:\n    def __init__(self):\n        self._items = []\n\n"
        "    def push(self, item):\n        self._items.append(item)\n\n    def pop(self):\n"
        "        if not self._items:\n            raise IndexError('pop from an empty stack')\n"
        "        return self._items.pop()\n\n    def __len__(self):\n        return len(self._items)\n"
    },
    {
        "text": "fn binary_search(values: &[i64], wanted: i64) -> Option<usize> {\n"
        "    let (mut low, mut high) = (0, values.len());\n    while low < high {\n"
        "        let middle = low + (high - low) / 2;\n"
        "        match values[middle].cmp(&wanted) {\n"
        "            Ordering::Equal => return Some(middle),\n"
        "            Ordering::Less => low = middle + 1,\n"
        "            Ordering::Greater => high = middle,\n        }\n    }\n    None\n}\n"
    },
    {
        "text": "<table>\n  <tr><th>Planet</th><th>Moons</th></tr>\n"
        "  <tr><td>Mars</td><td>2</td></tr>\n  <tr><td>Earth</td><td>1</td></tr>\n"
        "  <tr><td>Venus</td><td>0</td></tr>\n</table>\n"
    },
    _chat(
        "Why is the sky blue during the day and red in the evening?",
        "Air scatters blue light more strongly than red light. During the day the scattered blue "
        "reaches us from every part of the sky. In the evening the light of the Sun travels through "
        "much more air, most of the blue is scattered away, and what is left looks red.",
    ),
    _chat(
        "Give me three tips for sleeping better.",
        "1. Go to bed and get up at the same time every day.\n2. Keep the bedroom dark, quiet and "
        "cool.\n3. Put screens away an hour before you want to sleep.",
    ),
    _chat(
        "Write a short poem about a river.",
        "The river has nowhere to be before noon,\nit carries the sky in its arms like a tune,\n"
        "it stops for the stones and it hurries for none,\nand gives back at evening the gold of the "
        "sun.",
    ),
)


def paragraphs(name: str) -> Iterator[Record]:
    """The paragraphs of a text file, separated by lines of two percent signs."""
    for part in (HERE / name).read_text(encoding="utf-8").split("%%\n"):
        yield {"text": part.strip() + "\n"}


def calibration() -> list[Record]:
    """The calibration split, prose and templates mixed so that any prefix is varied."""
    prose = list(paragraphs("prose.txt"))
    made: list[Record] = []
    for index in range(10 * SAMPLES):
        text = TEMPLATES[index % len(TEMPLATES)](random.Random(1000 + index))
        record: Record = {"text": text} if isinstance(text, str) else text
        if record not in made and len(made) < SAMPLES - len(prose):
            made.append(record)
    records = prose + made
    random.Random(7).shuffle(records)
    return records


def write(name: str, records: list[Record]) -> None:
    """One JSON object a line."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (DATA / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write("calibration.jsonl", calibration())
    write("heldout.jsonl", [*paragraphs("heldout.txt"), *HELDOUT_RECORDS])
