"""The supervisor on programs that only pretend: order, backoff, adoption, what never restarts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from harness.waiting import wait_until
from superfs.cli import supervisor, up
from superfs.cli.children import Child, State, backoff_delays, end_of, last_lines, rotate
from superfs.cli.home import Home
from superfs.cli.output import EXIT_CONFIG, CliError
from superfs.cli.processes import Identity, boot_id, find_running, stop
from superfs.cli.programs import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Pretends to be a daemon: says that it is ready by a file, ends as the second argument tells.
SCRIPT = """
import pathlib, signal, sys, time
ready, how, order = sys.argv[1:4]
def end(*_):
    with open(order, "a") as f: f.write(sys.argv[4] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "deaf" else end)
if how.isdigit():
    print("cannot start: a reason", flush=True)
    sys.exit(int(how))
pathlib.Path(ready).write_text("")
while True:
    signal.pause()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.at(tmp_path / "home")
    home.make_dirs()
    return home


def program(home: Home, name: str, how: str = "serve", **settings: Any) -> Program:  # noqa: ANN401
    ready = home.run_dir / f"{name}.ready"
    order = str(home.root / "order")
    argv = (sys.executable, "-c", SCRIPT, str(ready), how, order, name)
    return Program(
        name,
        (*argv, "--config", str(home.config_file(name))),
        home.log_file(name),
        ready=ready.exists,
        clear=lambda: ready.unlink(missing_ok=True),
        **settings,
    )


def run(
    home: Home,
    programs: list[Program],
    during: Callable[[], None],
    told: list[str] | None = None,
) -> int:
    """Runs a supervisor in this thread; `during` runs in another one when all is ready, and
    whatever happens in it the supervisor is stopped."""
    failed: list[BaseException] = []

    def act() -> None:
        try:
            during()
        except BaseException as error:
            failed.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=act)
    heard: list[str] = [] if told is None else told
    boss = supervisor.Supervisor(home, programs, mount_point=None, tell=heard.append)
    status = boss.run(thread.start)
    thread.join()
    if failed:
        raise failed[0]
    return status


def child_pid(home: Home, name: str) -> int:
    status = supervisor.read_status(home)
    assert status is not None
    return int(status["children"][name]["pid"] or 0)


def test_starts_in_stages_and_stops_in_the_opposite_order(home: Home) -> None:
    programs = [
        program(home, "first"),
        program(home, "second", stage=1),
        program(home, "third", stage=2),
    ]
    assert run(home, programs, lambda: None) == 0
    assert (home.root / "order").read_text().split() == ["third", "second", "first"]
    assert supervisor.read_status(home) is None
    assert find_running(home.config_dir) == {}


def test_a_killed_child_comes_back(home: Home) -> None:
    told: list[str] = []

    def kill_it() -> None:
        before = child_pid(home, "one")
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: child_pid(home, "one") not in (0, before), "a new process")

        def ready_again() -> bool:
            status = supervisor.read_status(home)
            return status is not None and status["children"]["one"]["state"] == "ready"

        wait_until(ready_again, "ready again")

    assert run(home, [program(home, "one")], kill_it, told) == 0
    assert any("killed by SIGKILL" in line for line in told)


def test_a_terminal_that_has_gone_is_no_reason_to_stop(home: Home) -> None:
    def broken(_text: str) -> None:
        raise OSError("the terminal has gone")

    boss = supervisor.Supervisor(home, [program(home, "one")], mount_point=None, tell=broken)
    assert boss.run(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0


def test_stopped_while_starting(home: Home) -> None:
    def interrupted() -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    never = dataclasses.replace(program(home, "one"), ready=interrupted)
    boss = supervisor.Supervisor(home, [never], mount_point=None, tell=print)
    with pytest.raises(CliError, match="stopped before"):
        boss.run(lambda: None)
    assert find_running(home.config_dir) == {}


def test_configuration_errors_are_never_restarted(home: Home) -> None:
    with pytest.raises(CliError) as caught:
        run(home, [program(home, "fine"), program(home, "bad", "78", stage=1)], lambda: None)
    assert caught.value.status == EXIT_CONFIG
    assert "bad did not start: it ended with status 78" in caught.value.message
    assert "cannot start: a reason" in caught.value.hint
    assert find_running(home.config_dir) == {}, "what had started is stopped again"


def test_a_deaf_child_is_killed(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, [program(home, "deaf", "deaf", stop_grace_s=0.2)], lambda: None) == 0
    assert "does not end: killed" in capsys.readouterr().err
    assert find_running(home.config_dir) == {}


def test_a_second_signal_kills(home: Home) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: (supervisor.read_status(home) or {})["phase"] == "stopping", "stopping")

    assert run(home, [program(home, "deaf", "deaf", stop_grace_s=60.0)], twice) == 1
    assert find_running(home.config_dir) == {}


def test_orphans_are_adopted(home: Home) -> None:
    """As after a kill -9 of the supervisor: the same process goes on, and is stopped at the end."""
    one = program(home, "one")
    with home.log_file("one").open("ab") as log:
        orphan = subprocess.Popen(one.argv, stdout=log, stderr=log, process_group=0)
    try:
        wait_until(one.ready, "the orphan is ready")
        seen: list[int] = []
        assert run(home, [one], lambda: seen.append(child_pid(home, "one"))) == 0
        assert seen == [orphan.pid]
    finally:
        orphan.kill()
    assert orphan.wait() == 0, "stopped by SIGTERM"


def test_an_orphan_with_other_arguments_is_in_the_way(home: Home) -> None:
    one = program(home, "one")
    orphan = subprocess.Popen([*one.argv, "more"], process_group=0)
    try:
        wait_until(one.ready, "the orphan is ready")
        with pytest.raises(CliError, match="runs already with other arguments"):
            run(home, [one], lambda: None)
        assert orphan.poll() is None
    finally:
        orphan.kill()
        orphan.wait()


def test_a_signal_starts_again_what_was_ended_on_purpose(home: Home) -> None:
    def ended() -> bool:
        status = supervisor.read_status(home)
        return status is not None and status["children"]["one"]["state"] == "ended"

    def wake() -> None:
        os.kill(child_pid(home, "one"), signal.SIGTERM)
        wait_until(ended, "it has ended")
        os.kill(os.getpid(), supervisor.WAKE)
        wait_until(lambda: child_pid(home, "one") != 0, "it runs again")

    one = program(home, "one", on_purpose=lambda status: status == 0)
    assert run(home, [one], wake) == 0


def test_one_supervisor_at_a_time(home: Home) -> None:
    with supervisor.lock(home) as first:
        assert first
        with supervisor.lock(home) as second:
            assert not second
    with supervisor.lock(home) as again:
        assert again


def test_who_waits_for_another_supervisor_goes_on_when_that_one_ends(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` while a `down` is under way, or while another `up` fails."""
    with contextlib.ExitStack() as other:
        other.enter_context(supervisor.lock(home))
        monkeypatch.setattr("superfs.cli.up.time.sleep", lambda _s: other.close())
        assert not up._await_other(home, None, None, print)
    with supervisor.lock(home) as free:
        assert free


def test_a_full_disk_does_not_end_the_supervisor(home: Home) -> None:
    """Its status cannot be written then, and says who it is all the same."""
    in_the_way = home.status_file.with_suffix(".new")

    def kill_it() -> None:
        before = child_pid(home, "one")
        in_the_way.mkdir()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: len(told) == 3, "it has been started again")
        assert supervisor.read_status(home) is not None
        in_the_way.rmdir()

    told: list[str] = []
    assert run(home, [program(home, "one")], kill_it, told) == 0
    assert [line.split()[1] for line in told] == ["ready", "was", "ready", "stopped"]
    assert find_running(home.config_dir) == {}
    in_the_way.mkdir()
    with pytest.raises(CliError, match=r"supervisor\.json"):
        run(home, [program(home, "one")], lambda: None)


def test_a_status_of_another_process_is_not_believed(home: Home) -> None:
    mine = Identity.of(os.getpid())
    assert mine is not None
    home.status_file.write_text(json.dumps({**mine.to_json(), "children": {}}))
    assert supervisor.read_status(home) is not None
    for wrong in ({"start_ticks": mine.start_ticks + 1}, {"boot_id": "before"}, {"pid": "x"}):
        home.status_file.write_text(json.dumps({**mine.to_json(), **wrong, "children": {}}))
        assert supervisor.read_status(home) is None
    home.status_file.write_text("{")
    assert supervisor.read_status(home) is None


def test_identities() -> None:
    process = subprocess.Popen(["sleep", "60"])
    identity = Identity.of(process.pid)
    assert identity is not None
    assert identity.alive
    assert Identity.from_json(identity.to_json()) == identity
    stranger = Identity(identity.pid, identity.start_ticks - 1, boot_id())
    assert not stranger.kill(signal.SIGKILL), "a pid that changed hands is never signalled"
    assert process.poll() is None
    assert stop(identity, grace_s=20.0)
    assert not identity.alive, "a zombie is not alive"
    assert identity.wait(0.0)
    process.wait()
    assert Identity.of(process.pid) is None


def test_backoff_doubles_up_to_a_limit() -> None:
    assert list(islice(backoff_delays(), 8)) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_child_that_ran_long_starts_with_the_shortest_delay_again(home: Home) -> None:
    now = 100.0
    child = Child(program(home, "one", "1"), lambda: now)

    def ends_after(seconds: float) -> float:
        nonlocal now
        child.start()
        assert child.identity is None or child.identity.wait(20.0)
        now += seconds
        child.reap()
        assert child.state is State.WAITING
        return child.next_start - now

    assert [ends_after(1), ends_after(1), ends_after(61)] == [0.5, 1.0, 0.5]


def test_logs_are_rotated_and_their_end_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    assert last_lines(log) == []
    log.write_text("".join(f"{i}\n" for i in range(100)))
    assert last_lines(log, count=3) == ["97", "98", "99"]
    assert last_lines(log, since=end_of(log)) == []
    assert last_lines(log, since=end_of(log) - 3) == ["99"]
    rotate(log)
    assert log.exists()
    with log.open("ab") as file:
        file.truncate(17 * 1024 * 1024)
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "x.log.1").exists()
    rotate(log)


@pytest.fixture(autouse=True)
def nothing_runs(home: Home) -> Iterator[None]:
    yield
    for identity, _ in find_running(home.config_dir).values():
        identity.kill(signal.SIGKILL)
