"""How much of what Chukonu reads on Spark stays on the host that has it.

    python bench/chukonu_locality.py [--mib 256] [--hosts 2] [--rounds 3]

Hosts are network namespaces with a data daemon and a standalone worker of Spark each, whose name is
the address that `locate()` gives; the driver, clusterd and metad are on another one. Documents are
filtered and counted with the kernel's caches dropped before: as it is, and without locality, tasks
anywhere.
Network bytes are those of the workers' interfaces, both ways, of which a byte between two of them
counts twice; they have Spark's and the metadata's messages in them. Needs root, `ip` and
.venv-spark (`make spark`).

Goal: 95 % of the bytes by descriptors, so on the host, and a tenth of the bytes, at most, on the
network. Namespaces of one machine prove places and ways; they are no faster than each other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP / "tests"), str(TOP / "bench")]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.hosts import SpreadCluster

SPARK = TOP / ".venv-spark" / "bin"
PYTHON_PATH = os.pathsep.join(str(TOP / name) for name in ("proto", "clients"))
ARMS = ("as it is", "without locality")
LOCAL_MIN, NETWORK_MAX = 0.95, 0.10


def driver(master: str, host: str, cluster: str, token: str) -> None:
    """Reads names of arms, answers with what it took."""
    from unittest import mock

    from superfs.chukonu import Session
    from superfs.chukonu import functions as F
    from superfs.chukonu.sources.store import SuperStore

    builder = Session.builder.master(master).config("spark.driver.host", host)
    builder = builder.config("spark.driver.bindAddress", host)
    builder = builder.config("spark.executor.memory", "1g").config("spark.locality.wait", "10s")
    session = builder.config("spark.executorEnv.PYTHONPATH", PYTHON_PATH).getOrCreate()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        arm = json.loads(line)
        options = {"cluster": cluster, "token_file": token}
        nowhere = mock.patch.object(SuperStore, "places", return_value=[])
        with nowhere if arm == "without locality" else contextlib.nullcontext():
            started = time.perf_counter()
            read = session.read.options(**options).schema("id LONG, url STRING, text STRING")
            docs = read.json("superfs:///docs")
            sums = docs.filter(F.length("text") > 200).agg(F.count("*"), F.sum(F.length("text")))
            row = list(sums.collect()[0])
            seconds = time.perf_counter() - started
        ways = session.executor.last_run.statistics()["bytes_by_way"]
        answer = {"seconds": seconds, "rows": row, "ways": ways}
        print(json.dumps(answer), file=answers, flush=True)
    session.stop()


@contextlib.contextmanager
def process(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """With what it starts, it is ended."""
    pipe = subprocess.PIPE
    with log.open("a") as errors:
        made = subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdin=pipe,
            stdout=pipe,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(made.pid, signal.SIGTERM)
        made.communicate(timeout=60)


def logged(log: Path, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


@contextlib.contextmanager
def workers(cluster: SpreadCluster, logs: Path) -> Iterator[str]:
    """A master here, and a worker on all others: the master's address."""
    hosts = cluster.hosts
    here = hosts.address[hosts.first]
    url = f"spark://{here}:7599"
    run = f"exec {SPARK / 'spark-class'} org.apache.spark.deploy"
    with contextlib.ExitStack() as opened:

        def begin(name: str, script: str, words: str) -> None:
            env = {"SPARK_LOCAL_IP": hosts.address[name], "PYSPARK_PYTHON": str(SPARK / "python")}
            command = hosts.wrap(name, ["sh", "-c", script])
            opened.enter_context(process(command, env, logs / name))
            logged(logs / name, words)

        master = f"{run}.master.Master --host {here} --port 7599 --webui-port 0"
        begin(hosts.first, master, "elected leader")
        for name in hosts.others:
            worker = f"{run}.worker.Worker --host {hosts.address[name]} --cores 1 --memory 1g "
            worker += f"--webui-port 0 --work-dir {logs}/work-{name} {url}"
            begin(name, worker, "Successfully registered")
        yield url


def fill(cluster: SpreadCluster, size: int) -> int:
    """The bytes that are there."""
    import chukonu as side_by_side
    from superfs.client import ClientConfig, FileSystem

    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        side_by_side.make_data(Path(folder), size, 0)
        config = ClientConfig((cluster.target("clusterd"),), cluster.token_file)
        with FileSystem.connect(config) as fs:
            fs.mkdir("/docs")
            for path in (Path(folder) / "docs").iterdir():
                fs.write_bytes(f"/docs/{path.name}", path.read_bytes())
            return sum(entry.stat().st_size for entry in fs.scandir("/docs"))


def measure(cluster: SpreadCluster, logs: Path, rounds: int) -> int:
    took: dict[str, list[tuple[float, int, dict[str, int]]]] = {arm: [] for arm in ARMS}
    rows = []
    with workers(cluster, logs) as url:
        first = cluster.hosts.address[cluster.hosts.first]
        command = [str(SPARK / "python"), __file__, "--driver", url, first, cluster.entry]
        env = {"PYTHONPATH": PYTHON_PATH, "SPARK_LOCAL_IP": first}
        with process([*command, str(cluster.token_file)], env, logs / "driver") as made:
            assert made.stdin is not None
            assert made.stdout is not None

            def answer() -> dict[str, Any]:
                line = made.stdout.readline()  # type: ignore[union-attr]
                assert line, (logs / "driver").read_text()[-3000:]
                return dict(json.loads(line))

            answer()
            for turn in range(rounds + 1):  # the first one warms up
                for arm in ARMS:
                    os.sync()
                    Path("/proc/sys/vm/drop_caches").write_text("3\n")
                    before = cluster.hosts.bytes_moved()
                    made.stdin.write(json.dumps(arm) + "\n")
                    made.stdin.flush()
                    found = answer()
                    moved = cluster.hosts.bytes_moved() - before
                    rows.append(found["rows"])
                    if turn:
                        took[arm].append((found["seconds"], moved, found["ways"]))
    assert all(row == rows[0] for row in rows), rows
    return report(took)


def report(took: dict[str, list[tuple[float, int, dict[str, int]]]]) -> int:
    status = 0
    for arm, runs in took.items():
        seconds = sorted(run[0] for run in runs)
        ways = runs[-1][2]
        read = sum(ways.values())
        local = statistics.median(run[2].get("descriptor", 0) / read for run in runs)
        moved = statistics.median(run[1] / read for run in runs)
        spread = f"({seconds[0]:.2f}-{seconds[-1]:.2f})"
        print(
            f"{arm:18} {statistics.median(seconds):6.2f} s {spread:13} descriptors {local:6.1%}, "
            f"on the network {moved:6.1%} of {read:,} bytes; ways {ways}"
        )
        if arm == ARMS[0]:
            status = int(local < LOCAL_MIN or moved > NETWORK_MAX)
            print(f"{'':18} (goals: at least {LOCAL_MIN:.0%}, at most {NETWORK_MAX:.0%})")
    return status


def main() -> int:
    if sys.argv[1:2] == ["--driver"]:
        driver(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not SPARK.exists():
        print("no .venv-spark: `make spark` makes one")
        return 0
    from harness.hosts import SpreadCluster

    load = os.getloadavg()[0]
    names = ["head", *(f"w{n}" for n in range(args.hosts))]
    made = SpreadCluster(names)
    with made, tempfile.TemporaryDirectory(prefix="sfsb", dir="/var/tmp") as logs:
        size = fill(made, args.mib << 20)
        print(
            f"{platform.node()}: {os.cpu_count()} CPUs, load {load:.1f}; {size:,} bytes of "
            f"documents on {args.hosts} hosts, one core each, {args.rounds} rounds"
        )
        return measure(made, Path(logs), args.rounds)


if __name__ == "__main__":
    sys.exit(main())
