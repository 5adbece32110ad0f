"""superfs-mount at a temporary mount point, and the check that follows every file-system test."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from harness.cluster import toml
from harness.daemon import BIN, Daemon
from harness.waiting import wait_until
from superfs.cli.admin import Admin
from superfs.cli.fsck import check
from superfs.cli.options import Target

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Any

    from harness.cluster import Cluster


class Mount:
    """`settings` overrides the TOML's tables: {"mount": {"atime": "strict"}}.

    `executed`: what it has in memory is looked at."""

    def __init__(
        self,
        cluster: Cluster,
        name: str = "mnt",
        *,
        settings: dict[str, dict[str, Any]] | None = None,
        executed: bool = False,
    ) -> None:
        self.cluster = cluster
        self.point: Path = cluster.dir / name
        self.point.mkdir()
        config = cluster.dir / "config" / f"{name}.toml"
        tables: dict[str, dict[str, Any]] = {
            "client": {
                "cluster": [cluster.target("clusterd")],
                "token_file": cluster.token_file,
            },
        }
        for table, values in (settings or {}).items():
            tables.setdefault(table, {}).update(values)
        config.write_text(toml(tables))
        self.daemon = Daemon(
            name,
            [BIN / "superfs-mount", "--config", config, self.point],
            cluster.dir / "log" / f"{name}.log",
            executed=executed,
        )

    def start(self) -> Mount:
        self.daemon.start()

        def mounted() -> bool:
            assert self.daemon.running, f"the mount ended at start\n{self.daemon.tail()}"
            return os.path.ismount(self.point)

        wait_until(mounted, lambda: f"{self.point} is mounted\n{self.daemon.tail()}")
        return self

    def unmount(self) -> None:
        """As an administrator would: umount, and the program ends by itself with 0."""
        if os.path.ismount(self.point):
            subprocess.run(["umount", self.point], check=True, timeout=60)
        status = self.daemon.wait()
        assert status == 0, f"superfs-mount ended with {status}\n{self.daemon.tail()}"

    def trouble(self, allowed: Iterable[str] = ()) -> list[str]:
        return self.daemon.trouble(allowed)

    def close(self) -> None:
        """Whatever happened: no process and no mount is left."""
        self.daemon.kill()
        subprocess.run(["umount", "-l", self.point], check=False, capture_output=True)

    def __enter__(self) -> Mount:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.unmount()
        finally:
            self.close()


def fsck(cluster: Cluster, *, allowed: Iterable[str] = ()) -> None:
    """What `superfs fsck` does finds nothing. Called after every file-system test."""
    target = Target((cluster.target("clusterd"),), cluster.token_file)
    found = [str(finding) for finding in check(Admin(target)).findings]
    left = [line for line in found if not any(word in line for word in allowed)]
    assert not left, "\n".join(left)
