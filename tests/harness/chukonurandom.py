"""Random expressions over the table of functions, as text: run it to write tests/golden anew."""

from __future__ import annotations

import random
from pathlib import Path

SEED, COUNT, DEPTH = 4, 250, 3
OUT = Path(__file__).parents[1] / "golden" / "chukonu_random.txt"
LEAVES = {
    "int": [
        "'i'",
        "'j'",
        "lit(1)",
        "lit(0)",
        "lit(-3)",
        "lit(2147483647)",
        "lit(None).cast('int')",
    ],
    "long": ["'l'", "lit(4294967296)", "c('i').cast('bigint')"],
    "double": ["'d'", "'e'", "lit(0.5)", "lit(-0.0)", "lit(float('nan'))", "c('i').cast('double')"],
    "string": ["'s'", "'t'", "lit('')", "lit('é😀')", "lit('7')", "lit(None).cast('string')"],
    "boolean": ["'p'", "'q'", "lit(True)", "lit(None).cast('boolean')"],
    "date": ["'y'", "'z'"],
    "array<int>": ["'a'", "F.array('i', 'j')"],
    "array<string>": ["'w'", "F.split('s', 'l')"],
}
MAKERS = {
    "int": [
        "F.length({string})",
        "F.instr({string}, 'l')",
        "F.size({array<int>})",
        "F.size({array<string>})",
        "F.year({date})",
        "F.dayofweek({date})",
        "F.datediff({date}, {date})",
        "(C({int}) + C({int}))",
        "(C({int}) - C({int}))",
        "(C({int}) * C({int}))",
        "(C({int}) % C({int}))",
        "F.abs({int})",
        "C({long}).try_cast('int')",
        "C({double}).try_cast('int')",
        "C({string}).try_cast('int')",
        "F.when({boolean_}, C({int})).otherwise(C({int}))",
        "F.coalesce({int}, {int})",
        "F.greatest({int}, {int})",
        "F.least({int}, {int})",
        "F.nullif({int}, {int})",
        "F.array_max({array<int>})",
        "F.element_at({array<int>}, 1)",
        "F.pmod({int}, {int})",
        "C({int}).bitwiseXOR(C({int}))",
        "F.ascii({string})",
    ],
    "long": [
        "(C({long}) + C({int}))",
        "(C({long}) * C({long}))",
        "F.ceil({double})",
        "F.floor({double})",
        "F.crc32({string})",
        "F.array_position({array<int>}, 1)",
        "F.coalesce({long}, {int})",
    ],
    "double": [
        "(C({double}) + C({int}))",
        "(C({double}) * C({double}))",
        "(C({int}) / C({int}))",
        "(C({double}) / C({double}))",
        "(C({double}) % C({double}))",
        "F.sqrt({double})",
        "F.round({double}, 2)",
        "F.ln({double})",
        "F.pow({double}, {double})",
        "F.nanvl({double}, {double})",
        "F.greatest({double}, {double})",
        "F.least({double}, {double})",
        "F.signum({double})",
        "C({string}).try_cast('double')",
        "F.when({boolean_}, C({double}))",
    ],
    "string": [
        "F.upper({string})",
        "F.lower({string})",
        "F.trim({string})",
        "F.reverse({string})",
        "F.concat({string}, {string})",
        "F.concat_ws('-', {string}, {string})",
        "F.substr({string}, {int}, {int})",
        "F.substring({string}, 2, 3)",
        "F.lpad({string}, 6, 'xy')",
        "F.regexp_replace({string}, '[a-l]+', '<')",
        "F.regexp_extract({string}, '([a-z])(.)', 2)",
        "F.translate({string}, 'ae', 'A')",
        "F.substring_index({string}, 'l', -1)",
        "F.initcap({string})",
        "C({int}).cast('string')",
        "C({double}).cast('string')",
        "C({date}).cast('string')",
        "F.array_join({array<string>}, ',')",
        "F.when({boolean_}, C({string})).otherwise('else')",
        "F.coalesce({string}, {string})",
        "F.md5({string})",
        "F.repeat({string}, 2)",
        "F.left({string}, lit(3))",
    ],
    "boolean": [
        "(C({int}) > C({int}))",
        "(C({double}) <= C({double}))",
        "(C({string}) == C({string}))",
        "C({double}).eqNullSafe(C({double}))",
        "(C({boolean}) & C({boolean}))",
        "(C({boolean}) | C({boolean}))",
        "~C({boolean})",
        "C({string}).contains('l')",
        "C({string}).like('%l_%')",
        "C({string}).rlike('[a-c]')",
        "C({int}).isin(1, 7, None)",
        "C({string}).isNull()",
        "F.isnan({double})",
        "F.array_contains({array<int>}, 1)",
        "(C({date}) < C({date}))",
        "C({int}).cast('boolean')",
    ],
    "date": [
        "F.date_add({date}, 40)",
        "F.last_day({date})",
        "F.add_months({date}, 1)",
        "F.coalesce({date}, {date})",
        "F.greatest({date}, {date})",
    ],
    "array<int>": [
        "F.sort_array({array<int>})",
        "F.array_distinct({array<int>})",
        "F.array_union({array<int>}, {array<int>})",
        "F.slice({array<int>}, 1, 2)",
        "F.reverse({array<int>})",
        "F.array({int}, {int})",
    ],
    "array<string>": [
        "F.split({string}, ',')",
        "F.array_compact({array<string>})",
        "F.array_except({array<string>}, {array<string>})",
        "F.array({string}, {string})",
    ],
}


def made(rng: random.Random, kind: str, depth: int) -> str:
    if depth == 0 or (depth < DEPTH and rng.random() < 0.15):
        return rng.choice(LEAVES[kind])
    text = rng.choice(MAKERS[kind])
    while (start := text.find("{")) >= 0:
        end = text.index("}", start)
        name = text[start + 1 : end]
        inner = made(rng, name.rstrip("_"), depth - 1)
        if name.endswith("_"):  # a condition is a Column, not a name
            inner = f"c({inner})" if inner.startswith("'") else inner
        text = text[:start] + inner + text[end + 1 :]
    return text


def main() -> None:
    rng = random.Random(SEED)
    kinds = list(MAKERS)
    found: dict[str, None] = {}
    while len(found) < COUNT:
        found[made(rng, rng.choice(kinds), DEPTH)] = None
    OUT.write_text("\n".join(found) + "\n")


if __name__ == "__main__":
    main()
