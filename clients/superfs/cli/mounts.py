"""Mount points: what is mounted where, whether one may be mounted on, how to get one off."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

from superfs.cli.output import CliError
from superfs.client.mounted import Mounted, mount_table

USERS_SHOWN_MAX = 5


def mounted_at(path: Path) -> Mounted | None:
    return next((m for m in reversed(mount_table()) if m.path == path), None)


def is_dead(path: Path) -> bool:
    """Whether its FUSE process is gone without having unmounted it."""
    try:
        os.statvfs(path)  # a stat may still be answered from the kernel's memory
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def resolve_mount_point(path: Path) -> Path:
    """As the kernel's table will have it. Without touching a mount: it may be dead or stuck."""
    path = Path(os.path.abspath(path.expanduser()))
    path = path.parent.resolve() / path.name
    is_link = mounted_at(path) is None and os.path.islink(path)
    return path.resolve() if is_link else path


def check_fuse() -> None:
    """Raises what to do when this machine cannot mount."""
    if not os.path.exists("/dev/fuse"):
        raise CliError(
            "there is no /dev/fuse: the kernel's FUSE module is missing",
            hint="load it with `modprobe fuse`; in a container start it with "
            "--device /dev/fuse --cap-add SYS_ADMIN",
        )
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise CliError(
            "/dev/fuse may not be opened by this user",
            hint="make it readable and writable for you (usually mode 0666), or be root",
        )
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise CliError(
            "there is no fusermount3, and only root can mount without it",
            hint="install it with `apt-get install fuse3`, or be root",
        )


def prepare_mount_point(path: Path) -> None:
    """Makes the directory if need be and takes a dead mount of ours off; else raises why not."""
    found = mounted_at(path)
    if found is not None and found.is_superfs and is_dead(path):
        unmount(path, lazy=True)
        found = mounted_at(path)
    if found is not None:
        raise CliError(
            f"{path} is busy: {found.source} ({found.kind}) is mounted there",
            hint="unmount it first, or choose another mount point",
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = os.listdir(path)
    except FileExistsError:
        raise CliError(f"{path} is not a directory", hint="choose another mount point") from None
    except OSError as error:
        raise CliError(
            f"{path} cannot be used as a mount point: {error.strerror}",
            hint="choose another mount point",
        ) from None
    if names:
        raise CliError(
            f"{path} is not empty: a mount would hide what is in it",
            hint="choose an empty directory, or move its contents away",
        )


def unmount(path: Path, *, lazy: bool = False) -> None:
    """Raises who is in the way when it is busy. `lazy`: gone at once for everybody who is not
    using it yet."""
    if os.geteuid() == 0:
        command = ["umount", *(["-l"] if lazy else []), "-i", "--", str(path)]
    else:
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 or mounted_at(path) is None:
        return
    users = users_of(path)
    if users:
        shown = ", ".join(users[:USERS_SHOWN_MAX])
        raise CliError(
            f"{path} is busy: in use by {shown}",
            hint="end them or leave the directory; `superfs umount --lazy` detaches it regardless",
        )
    raise CliError(
        f"{path} cannot be unmounted: {done.stderr.strip() or f'status {done.returncode}'}"
    )


def users_of(path: Path) -> list[str]:
    """Processes with something open below `path`, as far as this user may see. Looks at links in
    /proc only: a stat in a stuck mount would hang."""
    prefix = f"{path}/"
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        links = [f"/proc/{entry}/cwd", f"/proc/{entry}/root"]
        try:
            links += [f"/proc/{entry}/fd/{fd}" for fd in os.listdir(f"/proc/{entry}/fd")]
        except OSError:
            continue
        if any(_link(link) == str(path) or _link(link).startswith(prefix) for link in links):
            name = _comm(entry)
            found.append(f"{name} (pid {entry})")
    return found


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _comm(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "a process"
