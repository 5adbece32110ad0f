"""Random whole programs, as text: chains of DataFrame methods over nasty values, with random
expressions of the table (chukonurandom.py). Run it to write tests/golden anew.

What a chain gives does not depend on the order of rows: windows have frames of peers, limits stand
behind an order by all columns.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from harness.chukonucases import ROWS, SCHEMA, compiled
from harness.chukonurandom import LEAVES, MAKERS

SEED, COUNT, STEPS_MAX = 11, 160, 6
OUT = Path(__file__).parents[1] / "golden" / "chukonu_chains.txt"
KINDS = {"INT": "int", "BIGINT": "long", "DOUBLE": "double", "STRING": "string"}
KINDS |= {"BOOLEAN": "boolean", "DATE": "date", "ARRAY<INT>": "array<int>"}
KINDS |= {"ARRAY<STRING>": "array<string>"}
ORDERED = ("int", "long", "double", "string", "boolean", "date")
SAFE = {
    kind: [
        text
        for text in texts
        if not any(f"C({{{k}}}) {o}" in text for k in KINDS.values() for o in "+-*/%")
    ]
    for kind, texts in MAKERS.items()
}
SAFE["double"] = [t for t in SAFE["double"] if "F.pow" not in t]
"""Those that are hardly ever errors: of a long chain with one every answer is the error."""
RISKY = 0.15
CONSTANT = {
    "date": "lit('2020-01-31').cast('date')",
    "array<int>": "F.array(lit(3), lit(1), lit(3))",
    "array<string>": "F.split(lit('b,a,b'), ',')",
}
"""Where there is no column of the kind any more."""
HOWS = ("inner", "left", "right", "outer", "left_semi", "left_anti")
AGGREGATES = {
    "int": ["count", "min", "max", "sum", "avg", "count_distinct", "sum_distinct"],
    "long": ["count", "min", "max", "avg", "count_distinct"],
    "double": ["count", "min", "max"],
    "string": ["count", "min", "max", "count_distinct"],
    "boolean": ["count", "bool_and", "bool_or", "count_if"],
    "date": ["count", "min", "max"],
}
RESULT = {"count": "long", "sum": "long", "avg": "double", "count_distinct": "long"}
RESULT |= {"sum_distinct": "long", "count_if": "long"}


class Chain:
    """`columns`: name and kind of what there is."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.text = "frame"
        parts = [part.split(" ", 1) for part in SCHEMA.split(", ")]
        self.columns = [(n, KINDS[k]) for n, k in parts if k in KINDS]
        self._made = 0

    def name(self) -> str:
        self._made += 1
        return f"n{self._made}"

    def of(self, *kinds: str) -> list[tuple[str, str]]:
        return [c for c in self.columns if c[1] in kinds]

    def expr(self, kind: str, depth: int = 2) -> str:
        """As a Column."""
        names = [f"'{n}'" for n, k in self.columns if k == kind]
        literals = [text for text in LEAVES[kind] if text.startswith("lit(")]
        literals = literals or [CONSTANT[kind]]
        leaves = names + (literals if self.rng.random() < 0.3 or not names else [])
        if depth and self.rng.random() < 0.7:
            table = MAKERS if self.rng.random() < RISKY else SAFE
            text = self.rng.choice(table[kind])
            while (start := text.find("{")) >= 0:
                end = text.index("}", start)
                inner = text[start + 1 : end]
                made = self.expr(inner.rstrip("_"), max(0, depth - 1))
                text = text[:start] + made + text[end + 1 :]
            return text
        return f"C({self.rng.choice(leaves)})"

    def possible(self, kind: str) -> bool:
        return bool(self.of(kind))

    def step(self) -> None:
        steps = [self.with_column] * 3 + [self.filter] * 3 + [self.select] * 2
        steps += [self.group] * 2 + [self.join] * 2 + [self.window] * 2
        steps += [self.limit, self.union, self.distinct, self.explode, self.repartition]
        self.rng.choice(steps)()

    def kind(self) -> str:
        found = [k for k in ORDERED if self.possible(k)]
        return self.rng.choice(found)

    def with_column(self) -> None:
        kind, name = self.kind(), self.name()
        self.text += f".withColumn('{name}', {self.expr(kind)})"
        self.columns.append((name, kind))

    def filter(self) -> None:
        if self.possible("boolean") and self.possible("int"):
            self.text += f".filter({self.expr('boolean')})"

    def select(self) -> None:
        kept = self.rng.sample(self.columns, max(1, len(self.columns) * 2 // 3))
        extra = [(self.name(), self.kind()) for _ in range(2)]
        made = [f"{self.expr(kind)}.alias('{name}')" for name, kind in extra]
        self.text += f".select({', '.join([*(repr(n) for n, _ in kept), *made])})"
        self.columns = [*kept, *extra]

    def group(self) -> None:
        keys = self.rng.sample(self.of(*ORDERED), min(2, len(self.of(*ORDERED))))
        keys = keys[: self.rng.randint(1, 2)]
        made, columns = [], []
        for _ in range(self.rng.randint(1, 4)):
            name, kind = self.rng.choice(self.of(*ORDERED))
            function, new = self.rng.choice(AGGREGATES[kind]), self.name()
            made.append(f"F.{function}('{name}').alias('{new}')")
            columns.append((new, RESULT.get(function, kind)))
        by = ", ".join(repr(n) for n, _ in keys)
        self.text += f".groupBy({by}).agg({', '.join(made)})"
        self.columns = [*keys, *columns]

    def join(self) -> None:
        found = self.of("int", "string", "double", "date")
        if not found:
            return
        name, kind = self.rng.choice(found)
        sides = {"int": "j", "string": "t", "double": "e", "date": "z"}
        how, key, value = self.rng.choice(HOWS), self.name(), self.name()
        other = f"other.select(c('{sides[kind]}').alias('{key}'), c('i').alias('{value}'))"
        self.text += f".join({other}, c('{name}') == c('{key}'), '{how}')"
        if how not in ("left_semi", "left_anti"):
            self.columns += [(key, kind), (value, "int")]

    def window(self) -> None:
        keys = self.of(*ORDERED)
        partition, order = self.rng.choice(keys)[0], self.rng.choice(keys)[0]
        name, kind = self.rng.choice(self.of("int", "string", "date") or keys)
        new = self.name()
        if self.rng.random() < 0.5:
            function, result = self.rng.choice(["rank()", "dense_rank()"]), "int"
        else:
            made = self.rng.choice(["count", "min", "max"])
            function, result = f"{made}('{name}')", "long" if made == "count" else kind
        way = self.rng.choice(["F.desc", "F.asc"])
        window = f"W.partitionBy('{partition}').orderBy({way}('{order}'))"
        self.text += f".withColumn('{new}', F.{function}.over({window}))"
        self.columns.append((new, result))

    def limit(self) -> None:
        kept = self.of(*ORDERED)
        self.text += f".select({', '.join(repr(n) for n, _ in kept)})"
        orders = [f"F.{self.rng.choice(['asc', 'desc'])}('{n}')" for n, _ in kept]
        self.rng.shuffle(orders)
        self.text += f".orderBy({', '.join(orders)}).limit({self.rng.randint(1, 6)})"
        self.columns = kept

    def union(self) -> None:
        kept = self.of(*ORDERED)[:4]
        names = ", ".join(repr(n) for n, _ in kept)
        values = ", ".join(self.expr(k, 1) for _, k in kept)
        self.text = f"(lambda d: d.select({names}).union(d.select({values})))({self.text})"
        self.columns = kept

    def distinct(self) -> None:
        kept = self.of(*ORDERED)[:3]
        self.text += f".select({', '.join(repr(n) for n, _ in kept)}).distinct()"
        self.columns = kept

    def explode(self) -> None:
        found = self.of("array<int>", "array<string>")
        if found:
            name, kind = self.rng.choice(found)
            new, how = self.name(), self.rng.choice(["explode", "explode_outer"])
            self.text += f".select('*', F.{how}('{name}').alias('{new}'))"
            self.columns.append((new, kind[6:-1]))

    def repartition(self) -> None:
        key = self.rng.choice(self.of(*ORDERED))[0]
        self.text += f".repartition({self.rng.randint(1, 7)}, '{key}')"


def chain(rng: random.Random) -> str:
    made = Chain(rng)
    for _ in range(rng.randint(2, STEPS_MAX)):
        made.step()
    return made.text


def program(text: str) -> Any:  # noqa: ANN401
    """Called with a session, the functions and Window."""

    def run(s: Any, F: Any, W: Any, parts: int = 0) -> Any:  # noqa: ANN401
        frame = s.createDataFrame(ROWS, SCHEMA)
        frame = frame.repartition(parts) if parts else frame
        return compiled(text, frame=frame, other=frame, W=W)(F)

    return run


CHAINS = {text: program(text) for text in (OUT.read_text().splitlines() if OUT.exists() else ())}


def main() -> None:
    rng = random.Random(SEED)
    found: dict[str, None] = {}
    while len(found) < COUNT:
        found[chain(rng)] = None
    OUT.write_text("\n".join(found) + "\n")


if __name__ == "__main__":
    main()
