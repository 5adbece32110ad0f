"""Mounting: /dev/fuse, mount(2), and the kernel's knobs that libfuse does not reach.

As root we open /dev/fuse and mount ourselves. Only so the mount carries MS_POSIXACL, and only then
does the kernel leave the umask to us, which a default ACL must be able to replace. Anybody else
mounts by fusermount3. Requests are read by the desk (superfs.mount.desk).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import socket
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superfs.mount.options import MountOptions

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_SYNCHRONOUS, MS_NOATIME, MS_POSIXACL, MS_STRICTATIME = 16, 1024, 1 << 16, 1 << 24
MNT_DETACH = 2
FSTYPE = "fuse.superfs"

_OCTAL = re.compile(rb"\\([0-7]{3})")
_libc = ctypes.CDLL(None, use_errno=True)


class MountError(Exception):
    """The message says what is wrong and what to do."""


@dataclass(slots=True)
class Mountpoint:
    """A mount that this process has made."""

    path: Path
    fd: int  # of /dev/fuse


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def prepare(path: Path, *, recover: bool) -> None:
    """Raises what is in the way of mounting there."""
    try:
        found = path.stat()
        if is_superfs(path):
            # The kernel may still answer a stat for a mount whose process has ended.
            os.statvfs(path)
            raise MountError(f"mount point {path} is busy: a SuperFS is mounted there already")
    except FileNotFoundError:
        raise MountError(f"mount point {path} does not exist: create it with mkdir") from None
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise MountError(f"mount point {path}: {error.strerror}") from None
        if not recover:
            raise MountError(
                f"mount point {path} holds a dead mount (its process has ended): take it off with "
                f"`umount -l {path}` or mount with -o recover"
            ) from None
        unmount(path, lazy=True)
        prepare(path, recover=False)
        return
    if not stat.S_ISDIR(found.st_mode):
        raise MountError(f"mount point {path} is not a directory")


def is_superfs(path: Path) -> bool:
    """Whether the topmost mount at exactly this place is ours."""
    found = _mountinfo(path)
    return found is not None and found[1] == FSTYPE


def is_mounted(path: Path) -> bool:
    return _mountinfo(path) is not None


def device_of(path: Path) -> str:
    """As MAJOR:MINOR, of what is mounted there."""
    found = _mountinfo(path)
    if found is None:
        raise MountError(f"mount point {path}: nothing is mounted there any more")
    return found[0]


def _mountinfo(path: Path) -> tuple[str, str] | None:
    """(device as MAJOR:MINOR, file system type) of the topmost mount at this place, from the
    kernel's table: a stat would be a request to the mount itself."""
    place = os.fsencode(path)
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        if _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), fields[4]) == place:
            found = (fields[2].decode(), after.split(b" ")[0].decode())
    return found


def is_allow_other(options: MountOptions) -> bool:
    if options.allow_other == "auto":
        return os.geteuid() == 0
    return options.allow_other == "yes"


def mount(path: Path, source: str, options: MountOptions) -> Mountpoint:
    if os.geteuid() != 0:
        return Mountpoint(path, _mount_by_fusermount(path, options))
    fd = _open_device()
    try:
        data = [f"fd={fd}", f"rootmode={stat.S_IFDIR:o}", f"user_id={os.getuid()}"]
        data += [f"group_id={os.getgid()}", "default_permissions"]
        if is_allow_other(options):
            data.append("allow_other")
        _mount(source, path, mount_flags(options), ",".join(data))
    except BaseException:
        os.close(fd)
        raise
    return Mountpoint(path, fd)


def _open_device() -> int:
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MountError(
            "there is no /dev/fuse: load the kernel module with modprobe fuse"
        ) from None
    except OSError as error:
        raise MountError(f"/dev/fuse: {error.strerror}") from None


def _mount(source: str, path: Path, flags: int, data: str) -> None:
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(path),
        FSTYPE.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )
    try:
        _check(result, str(path))
    except OSError as error:
        raise MountError(f"mount point {path}: mount failed: {error.strerror}") from None


def mount_flags(options: MountOptions) -> int:
    flags = {"noatime": MS_NOATIME, "strictatime": MS_STRICTATIME}.get(options.atime, 0)
    if options.read_only:
        flags |= MS_RDONLY
    if not options.suid:
        flags |= MS_NOSUID
    if not options.dev:
        flags |= MS_NODEV
    if not options.exec:
        flags |= MS_NOEXEC
    if options.sync:
        flags |= MS_SYNCHRONOUS
    if options.acl:
        flags |= MS_POSIXACL
    return flags


def _mount_by_fusermount(path: Path, options: MountOptions) -> int:
    """For who may not mount(2): fusermount3 does, and passes the descriptor of /dev/fuse."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        command = ["fusermount3", "-o", ",".join(_fusermount_options(options)), "--", str(path)]
        number = theirs.fileno()
        try:
            done = subprocess.run(
                command,
                env={**os.environ, "_FUSE_COMMFD": str(number)},
                pass_fds=(number,),
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise MountError("there is no fusermount3: install the package fuse3") from None
        if done.returncode != 0:
            raise MountError(f"mount point {path}: {done.stderr.strip()}")
        theirs.close()  # or who has sent nothing would be waited for
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise MountError(f"mount point {path}: fusermount3 has passed no descriptor")
    os.set_inheritable(fds[0], False)
    return fds[0]


def _fusermount_options(options: MountOptions) -> list[str]:
    words = ["default_permissions", "fsname=superfs", "subtype=superfs", "nosuid", "nodev"]
    words += ["allow_other"] if is_allow_other(options) else []
    words += ["ro"] if options.read_only else []
    words += [] if options.exec else ["noexec"]
    words += ["sync"] if options.sync else []
    return words


def unmount(path: Path, *, lazy: bool) -> None:
    _check(_libc.umount2(os.fsencode(path), MNT_DETACH if lazy else 0), str(path))


def tune(path: Path, options: MountOptions) -> None:
    """As root: more requests in flight and a longer read-ahead than libfuse can ask for. Where
    sysfs is not there or not ours, the defaults remain."""
    found = _mountinfo(path)
    if found is None:
        return
    major, minor = map(int, found[0].split(":"))
    connection = Path("/sys/fs/fuse/connections") / str((major << 20) | minor)
    settings = {
        connection / "max_background": options.max_background,
        connection / "congestion_threshold": max(1, options.max_background * 3 // 4),
        Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb"): options.read_ahead_kib,
    }
    for file, value in settings.items():
        with contextlib.suppress(OSError):
            file.write_text(f"{value}\n")
