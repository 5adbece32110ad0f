"""How every daemon starts, serves and stops. A daemon's own `main` is one call of `run_daemon`.

    superfs-NAME --config FILE    serve
                 --check-config | --print-config | --format

Start: configuration, logging, key, lock on the state directory, `Service.start`, gRPC, READY.
Stop (SIGTERM, SIGINT): new calls are refused, streams end, unary calls finish within
`stop_grace_s`, and when no servicer runs any more `Service.stop` makes everything durable.

Exit status: 0 clean, 2 usage, 75 after an I/O error, 78 configuration, identity or damage, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from superfs.core import config as configuration
from superfs.core.config import ConfigError
from superfs.core.errors import Code, FsError
from superfs.core.tokens import Authority
from superfs.daemon import failpoints, keyfile, logs
from superfs.daemon.clock import SystemClock
from superfs.daemon.common import CommonConfig, DaemonConfig
from superfs.daemon.lmdbfile import end_checks
from superfs.daemon.metrics import MetricsServer, RpcMetrics, new_registry
from superfs.daemon.notify import Notifier
from superfs.daemon.process import ProcessServicer
from superfs.daemon.statedir import AlreadyRunning, StateDir
from superfs.daemon.world import World, exit_code_of
from superfs.rpc.server import GrpcServer
from superfs.v1 import process_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

C = TypeVar("C", bound=DaemonConfig)
D = TypeVar("D", bound=DaemonConfig, contravariant=True)


class Service(Protocol):
    """What a daemon is, to this base."""

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Opens stores and starts long tasks in `group`. May be cancelled while it waits.

        FsError DAMAGED, WRONG_IDENTITY or BAD_FORMAT ends the process with status 78."""
        ...

    def register(self, server: GrpcServer) -> None:
        """Adds servicers to `server.grpc`. Called once, after `start`."""
        ...

    async def stop(self) -> None:
        """Everything acknowledged is durable when it returns. No servicer runs any more; tasks
        of the group are cancelled afterwards."""
        ...


class Command(Protocol[D]):
    """Something else a daemon's binary does than to serve: options of its own, then one act."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def wanted(self, args: argparse.Namespace) -> bool: ...

    def run(self, args: argparse.Namespace, config: D, authority: Authority) -> int: ...


def run_daemon(
    name: str,
    config_class: type[C],
    make: Callable[[C, World], Service],
    argv: Sequence[str] | None = None,
    *,
    format: Callable[[C, World], None] | None = None,  # noqa: A002 - the option's name
    command: Command[C] | None = None,
    makes_key: bool = False,
) -> NoReturn:
    """`format` creates the stores in a locked, empty state directory and writes its identity
    (statedir.write_identity) as its last act; with `makes_key` it also makes the key of the
    cluster where there is none."""
    gc.freeze()  # what is imported stays: no collection, nor the one at the end, looks at it
    sys.exit(Daemon(name, config_class, make, format, command, makes_key).main(argv))


class Daemon(Generic[C]):
    def __init__(
        self,
        name: str,
        config_class: type[C],
        make: Callable[[C, World], Service],
        format: Callable[[C, World], None] | None = None,  # noqa: A002
        command: Command[C] | None = None,
        makes_key: bool = False,
    ) -> None:
        self._name = name
        self._config_class = config_class
        self._make = make
        self._format = format
        self._command = command
        self._makes_key = makes_key

    def main(self, argv: Sequence[str] | None = None) -> int:
        args = self._parser().parse_args(argv)
        os.umask(0o077)
        if args.print_config:
            sys.stdout.write(configuration.dump(self._config_class()).lstrip("\n"))
            return 0
        try:
            return self._run(args)
        except (ConfigError, FsError, AlreadyRunning, OSError) as error:
            text = error.detail if isinstance(error, FsError) and error.detail else str(error)
            print(f"superfs-{self._name}: {text}", file=sys.stderr)
            return exit_code_of(error)

    def _run(self, args: argparse.Namespace) -> int:
        config = configuration.load(self._config_class, args.config)
        if args.check_config:
            print(f"{args.config}: good")
            return 0
        common = config.daemon
        log = logs.configure(common.log_level, common.log_format, daemon=self._name)
        if args.format and self._makes_key:
            keyfile.make_key(common.key_file)
        authority = Authority(keyfile.read_key(common.key_file))
        if self._command is not None and self._command.wanted(args):
            return self._command.run(args, config, authority)
        world = World(
            authority=authority,
            clock=SystemClock(),
            failpoints=failpoints.from_environment(common.failpoints),
            metrics=new_registry(),
            log=log,
        )
        if args.format:
            return self._run_format(config, world)
        lock = StateDir(common.state_dir)
        lock.acquire()
        code = asyncio.run(_Run(self._name, config.daemon, self._make(config, world), world).run())
        log.info("stopped", exit_code=code)
        logging.shutdown()
        return code

    def _run_format(self, config: C, world: World) -> int:
        assert self._format is not None
        state = StateDir(config.daemon.state_dir)
        state.create()
        state.acquire()
        self._format(config, world)
        state.release()
        print(f"{config.daemon.state_dir}: formatted")
        return 0

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(prog=f"superfs-{self._name}", allow_abbrev=False)
        parser.add_argument(
            "--config", type=Path, default=Path(f"/etc/superfs/{self._name}.toml"), metavar="FILE"
        )
        act = parser.add_mutually_exclusive_group()
        act.add_argument("--check-config", action="store_true", help="read the file and stop")
        act.add_argument("--print-config", action="store_true", help="print every default")
        if self._format is not None:
            act.add_argument(
                "--format", action="store_true", help="create an empty store, once, and stop"
            )
        else:
            parser.set_defaults(format=False)
        if self._command is not None:
            self._command.add_arguments(parser)
        return parser


class _Run:
    """One run of a service, from start to stop, inside one event loop."""

    def __init__(self, name: str, common: CommonConfig, service: Service, world: World) -> None:
        self._name = name
        self._common = common
        self._service = service
        self._world = world
        self._notify = Notifier()
        self._stop = asyncio.Event()
        self._started = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self._serve(group), name="serve")
                group.create_task(self._notify.watch(), name="watchdog")
                await self._stop.wait()
                self._notify.stopping("stopping")
                if not self._started:
                    serving.cancel()  # while it waited for something: nothing was served
                    end_checks()
                await asyncio.wait({serving})
                raise _Stopped
        except BaseExceptionGroup as group_error:
            failures = group_error.split(_Stopped)[1]
            return 0 if failures is None else self._failed(failures)

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        """Returns after a clean stop."""
        common, world = self._common, self._world
        starting = group.create_task(self._notify.starting(), name="starting")
        await self._service.start(group)
        starting.cancel()
        self._started = True
        rpcs = RpcMetrics(world.metrics)
        server = GrpcServer(common.listen, world.authority, world.clock.now_ns, rpcs, rpcs.received)
        self._service.register(server)
        process = ProcessServicer(world.metrics)
        process_pb2_grpc.add_ProcessServicer_to_server(process, server.grpc)
        metrics = MetricsServer(common.metrics, world.metrics) if common.metrics else None
        try:
            await server.start()
            world.log.info(
                "serving", listen=list(server.addresses), metrics=metrics.address if metrics else ""
            )
            self._notify.ready(f"serving on {', '.join(server.addresses)}")
            await self._stop.wait()
            await server.stop(common.stop_grace_s)
            await self._service.stop()
        finally:
            await server.stop(0)  # when something else has failed: nothing is answered any more
            if metrics is not None:
                metrics.close()

    def _failed(self, group: BaseExceptionGroup[Any]) -> int:
        errors = _leaves(group)
        for error in errors:
            # An OSError without a number is one of ours, in plain words.
            expected = (isinstance(error, FsError) and error.code is not Code.INTERNAL) or (
                isinstance(error, OSError) and error.errno is None
            )
            self._world.log.critical(
                "failed", error=str(error), exc_info=None if expected else error
            )
        return max(exit_code_of(error) for error in errors)


class _Stopped(Exception):
    """Ends the task group after a clean stop."""


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
