"""Real text, from raw lines to clean parquet, with the answer known beforehand.

    python examples/clean_corpus.py [--mib 320] [--grown-mib 1040] [--dir DIR] [--work DIR]

1. Text is collected from what installed Debian and PyPI packages bring: documentation, manual
   pages, sources. Each different text is a document.
2. It is written as JSON lines, grown by copies and by damaged lines of known kinds at known
   places. What must become of each line is worked out here in plain Python, and kept.
3. The files are put into SuperFS: the cluster of `superfs up --dir DIR`, or one made for it.
4. Chukonu reads them past the mount, keeps bad lines aside, drops copies, applies rules of C4 to
   lines and of Gopher to documents, and writes parquet into SuperFS.
5. Every document, every dropped copy and every bad record is compared with what must become of it.

Needs `pip install 'superfs[chukonu]'`. The exit status says whether all was right.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOTS = ["/usr/share/doc", "/usr/share/man", "/usr/share/perl", "/usr/share/info", "/usr/include"]
ENDS = (".txt", ".md", ".rst", ".html", ".py", ".pyi", ".h", ".pod", ".gz", ".pm", "copyright")
TEXT_MIN, TEXT_MAX, FILES = 300, 200_000, 16
DAMAGE_EVERY, COPIES = 150, 0.2
SUPERFS = str(Path(sys.executable).with_name("superfs"))
STOP = ("the", "be", "to", "of", "and", "that", "have", "with")
SCHEMA = "id LONG, source STRING, text STRING"


# ---- collecting


def texts(roots: list[Path]) -> Iterator[tuple[str, str]]:
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.name.endswith(ENDS) and path.is_file() and not path.is_symlink():
                try:
                    data = path.read_bytes()
                    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
                except (OSError, EOFError, UnicodeDecodeError):
                    continue
                if TEXT_MIN <= len(text) <= TEXT_MAX:
                    yield str(path), text


def distinct(roots: list[Path], size: int) -> Iterator[tuple[str, str]]:
    seen: set[bytes] = set()
    for path, text in texts(roots):
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield path, text
            size -= len(text)
            if size <= 0:
                return


# ---- what must become of a text: plain Python, written apart from the job

SPACE = re.compile(r"[ \t\n\x0b\f\r]+")


def cleaned(text: str) -> str | None:
    lines = []
    for raw in text.split("\n"):
        line = raw.lstrip(" ")
        words = [word for word in line.split(" ") if word]
        scripted = re.search("[Jj]ava[sS]cript", raw)
        if len(words) >= 3 and line[-1] in ".!?\"'" and not scripted:
            lines.append(line)
    found = "\n".join(lines)
    if not lines:
        return None
    words = SPACE.split(found)
    count = len(words)
    mean = sum(map(len, words)) / count
    alpha = sum(bool(re.search("[A-Za-z]", word)) for word in words)
    symbols = found.count("#") + found.count("…")
    bullets = sum(line.startswith(("-", "*", "•")) for line in lines)
    ellipses = sum(line.endswith(("...", "…")) for line in lines)
    stops = len(set(SPACE.split(found.lower())) & set(STOP))
    sentences = len(re.findall(r"[.!?][\"']?[ \n]", found + "\n"))
    good = 50 <= count <= 100_000 and 3 <= mean <= 10 and symbols / count <= 0.1
    good = good and bullets / len(lines) <= 0.9 and ellipses / len(lines) <= 0.3
    good = good and alpha / count >= 0.8 and stops >= 2
    good = good and sentences >= 5 and "{" not in found and "lorem ipsum" not in text.lower()
    return found if good else None


def outcome(line: bytes) -> str | None:
    """The hash of what is left of a document."""
    found = cleaned(json.loads(line)["text"])
    return None if found is None else hashlib.blake2b(found.encode(), digest_size=16).hexdigest()


# ---- the same, for Chukonu


def clean(docs: Any, F: Any) -> Any:  # noqa: ANN401
    docs = docs.dropDuplicates(["text"]).filter(
        ~F.lower("text").contains("lorem ipsum").alias("lorem ipsum")
    )
    plain = F.regexp_replace("text", "[^\n]*[Jj]ava[sS]cript[^\n]*", "")
    line = "(?:(?:[^ \n]+[ ]+){2}[^ \n][^\n]*[.!?\"']|(?:[^ \n]+[ ]+){2}[.!?\"'])\n"
    lines = F.regexp_extract_all(F.concat(plain, F.lit("\n")), F.lit(line), 0)
    docs = docs.withColumn("lines", lines).filter((F.size("lines") > 0).alias("no good line"))
    joined = F.array_join("lines", "")
    docs = docs.withColumn("text", F.left(joined, F.length(joined) - 1))
    words = F.split("text", "[ \t\n\x0b\f\r]+")
    docs = docs.withColumns({"n": F.size(words), "all": F.concat(F.lit("\n"), "text", F.lit("\n"))})
    n, rows = F.col("n"), F.size("lines")
    letters = F.length(F.regexp_replace("text", "[ \t\n\x0b\f\r]+", ""))
    alpha = F.regexp_count("text", F.lit("[A-Za-z][^ \t\n\x0b\f\r]*"))
    stop = F.array_intersect(
        F.split(F.lower("text"), "[ \t\n\x0b\f\r]+"), F.array(*map(F.lit, STOP))
    )
    rules = {
        "number of words": n.between(50, 100_000),
        "mean length of words": (letters / n).between(3, 10),
        "symbols": F.regexp_count("text", F.lit("[#…]")) / n <= 0.1,
        "bullets": F.regexp_count("all", F.lit("\n[-*•]")) / rows <= 0.9,
        "ellipses": F.regexp_count("all", F.lit("(?:[.][.][.]|…)\n")) / rows <= 0.3,
        "words without letters": alpha / n >= 0.8,
        "stop words": F.size(stop) >= 2,
        "sentences": F.regexp_count("all", F.lit("[.!?][\"']?[ \n]")) >= 5,
        "curly bracket": ~F.col("text").contains("{"),
    }
    for reason, rule in rules.items():
        docs = docs.filter(rule.alias(reason))
    return docs.select("id", "source", "text")


# ---- files, and what is known of their lines


class Truth(NamedTuple):
    first: dict[int, tuple[str, int, int]]
    """Of each text: where its first line is, and the id that this has."""
    bad: dict[tuple[str, int], str]
    lines: int


DAMAGE = {
    "cut": lambda line: line[: len(line) * 2 // 3],
    "trailing": lambda line: line + b" x",
    "id is text": lambda line: line.replace(b'"id": ', b'"id": "one", "n": ', 1),
    "two commas": lambda line: line.replace(b', "text"', b',, "text"', 1),
    "not UTF-8": lambda line: line[:-2] + b'\xff"}',
    "lone surrogate": lambda line: line[:-2] + b'\\ud800"}',
    "binary": lambda line: hashlib.sha256(line).digest().replace(b"\n", b"-").replace(b"\r", b"-"),
}


def write(folder: Path, base: Iterator[tuple[str, str]], grown: int) -> tuple[Truth, list[bytes]]:
    """Copies lie before and behind what they are copies of."""
    rng = random.Random(5)
    lines = [
        f'"source": {json.dumps(path)}, "text": {json.dumps(text, ensure_ascii=False)}}}'.encode()
        for path, text in base
    ]
    size = sum(map(len, lines))
    order = list(range(len(lines)))
    while size < grown or rng.random() > COPIES:
        order.append(rng.randrange(len(lines)))
        size += len(lines[order[-1]])
    rng.shuffle(order)
    truth = Truth({}, {}, len(order))
    kinds = itertools.cycle(DAMAGE.items())
    step = -(-len(order) // FILES)
    for part in range(FILES):
        name, place = f"{part:03}.json", 0
        with (folder / name).open("wb") as out:
            for number, which in enumerate(order[part * step : (part + 1) * step], part * step):
                line = b'{"id": %d, ' % number + lines[which]
                if number % DAMAGE_EVERY == 7:
                    kind, damage = next(kinds)
                    raw = damage(line)
                    truth.bad[name, place] = f"{kind} {hashlib.sha256(raw).hexdigest()}"
                    place += out.write(raw + b"\n")
                truth.first.setdefault(which, (name, place, number))
                place += out.write(line + b"\n")
    return truth, lines


# ---- together


def expected(truth: Truth, lines: list[bytes]) -> dict[int, str]:
    """The hash of what is left of each document that stays."""
    with Pool() as pool:
        left = pool.map(outcome, [b"{" + line for line in lines], chunksize=200)
    return {truth.first[i][2]: digest for i, digest in enumerate(left) if digest is not None}


def compared(truth: Truth, wanted: dict[int, str], clean_rows: Any, folder: Path) -> list[str]:  # noqa: ANN401
    """What is wrong."""
    found = {
        row["id"]: hashlib.blake2b(row["text"].encode(), digest_size=16).hexdigest()
        for row in clean_rows
    }
    wrong = [f"document {i} is missing" for i in sorted(wanted.keys() - found.keys())]
    wrong += [f"document {i} should not be there" for i in sorted(found.keys() - wanted.keys())]
    wrong += [f"document {i} has another text" for i in wanted if found.get(i, "") != wanted[i]]
    kept = {}
    for path in folder.glob("bad-*.json"):
        for text in path.read_text().splitlines():
            record = json.loads(text)
            raw = base64.b64decode(record["raw"])
            place = Path(record["path"]).name, record["offset"]
            kept[place] = hashlib.sha256(raw).hexdigest()
    known = {place: text.rpartition(" ")[2] for place, text in truth.bad.items()}
    wrong += [f"bad record {p}: {truth.bad[p]} was not kept" for p in known if p not in kept]
    wrong += [f"record {p} is not bad" for p in kept if p not in known]
    wrong += [f"bad record {p} has other bytes" for p in known if kept.get(p) != known[p]]
    print(f"{len(wanted):,} documents are clean, {len(known):,} lines bad: all compared")
    return wrong


def run(args: argparse.Namespace, work: Path, cluster: str) -> list[str]:
    from superfs.chukonu import Session
    from superfs.chukonu import functions as F

    started = time.perf_counter()

    def said(what: str) -> None:
        print(f"{time.perf_counter() - started:7.1f} s  {what}", flush=True)

    roots = [Path(p) for p in (*ROOTS, *args.root) if Path(p).is_dir()]
    roots += sorted(Path("/usr/lib").glob("python3*")) + sorted(
        Path(sys.prefix).glob("lib/*/site-*")
    )
    (work / "raw").mkdir()
    truth, lines = write(work / "raw", distinct(roots, args.mib << 20), args.grown_mib << 20)
    size, whole = sum(map(len, lines)), sum(p.stat().st_size for p in (work / "raw").iterdir())
    said(
        f"{size / 1e6:,.0f} MB of text in {len(lines):,} documents, grown to {whole / 1e6:,.0f} MB "
        f"in {truth.lines:,} lines, and {len(truth.bad):,} damaged ones"
    )
    wanted = expected(truth, lines)
    said("what must become of them is worked out, in plain Python")
    subprocess.run(
        [SUPERFS, "import", "--dir", cluster, str(work / "raw"), args.target],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    said(f"in SuperFS, at {args.target}")
    builder = Session.builder.config("chukonu.memory.bytes", args.memory_mib << 20)
    with builder.config("chukonu.local.dir", work).getOrCreate() as session:
        reader = session.read.schema(SCHEMA).options(mode="DROPMALFORMED", dir=cluster)
        docs = reader.option("badRecordsPath", str(work / "bad")).json(f"superfs://{args.target}")
        out = f"superfs://{args.target}-clean"
        manifest = clean(docs, F).write.option("dir", cluster).mode("overwrite").save(out)
        said("clean")
        for one in manifest["statistics"]["operators"]:
            dropped = ", ".join(f"{rows:,} {why}" for why, rows in one["dropped"].items())
            if dropped:
                label = " ".join(one["operator"].split())[:40]
                print(f"    {label:40} {one['rows_in']:>9,} -> {one['rows_out']:>9,}  ({dropped})")
        print(f"    bytes by way: {manifest['statistics']['bytes_by_way']}")
        rows = session.read.option("dir", cluster).parquet(out).toLocalIterator()
        wrong = compared(truth, wanted, rows, work / "bad")
    said("compared" if not wrong else f"{len(wrong)} things are wrong")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=320, help="of text")
    parser.add_argument("--grown-mib", type=int, default=1040, help="with copies and damage")
    parser.add_argument("--memory-mib", type=int, default=512, help="budget of the session")
    parser.add_argument(
        "--root", action="append", default=[], help="more text, before the packages"
    )
    parser.add_argument("--dir", help="of the cluster; without it one is made, and removed")
    parser.add_argument("--target", default="/corpus", help="directory in SuperFS")
    parser.add_argument("--work", default="/var/tmp")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="corpus-", dir=args.work))
    cluster = args.dir or str(work / "cluster")
    try:
        if args.dir is None:
            subprocess.run([SUPERFS, "up", "--dir", cluster, "--detach"], check=True)
        wrong = run(args, work, cluster)
    finally:
        if args.dir is None:
            subprocess.run([SUPERFS, "down", "--dir", cluster], check=False)
        shutil.rmtree(work)
    for line in wrong[:20]:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
