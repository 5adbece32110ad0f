"""`superfs-clusterd --issue-token`: writes a token file. Needs the key, not a running daemon."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from superfs.core.config import ConfigError
from superfs.core.tokens import Authority, Grant, Purpose, armor
from superfs.daemon.exits import EXIT_USAGE
from superfs.daemon.statedir import write_private

if TYPE_CHECKING:
    import argparse

    from superfs.cluster.config import ClusterdConfig

DAY_NS = 86_400 * 1_000_000_000


class IssueToken:
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        group = parser.add_argument_group("--issue-token")
        group.add_argument(
            "--issue-token",
            choices=("host", "user"),
            help="host: a mount by root, whose kernel checks permissions; "
            "user: one uid, for whom the servers check them",
        )
        group.add_argument("--name", help="whose it is, for the logs")
        group.add_argument("--uid", type=int, help="of a user token")
        group.add_argument("--gid", type=int, help="of a user token")
        group.add_argument("--groups", default="", metavar="GID,...", help="supplementary groups")
        group.add_argument("--read-only", action="store_true")
        group.add_argument(
            "--days", type=float, metavar="N", help="valid for so long, not for ever"
        )
        group.add_argument("--out", type=Path, metavar="FILE", help="a new file, 0600")

    def wanted(self, args: argparse.Namespace) -> bool:
        return args.issue_token is not None

    def run(self, args: argparse.Namespace, config: ClusterdConfig, authority: Authority) -> int:
        try:
            token = authority.issue(Purpose.FILE, grant_of_options(args, time.time_ns()))
        except ValueError as error:
            print(f"superfs-clusterd: {error}", file=sys.stderr)
            return EXIT_USAGE
        try:
            write_private(args.out, armor(token))
        except FileExistsError:
            raise ConfigError(f"{args.out} exists already; nothing was written") from None
        return 0


def grant_of_options(args: argparse.Namespace, now_ns: int) -> Grant:
    if not args.name or args.out is None:
        raise ValueError("--issue-token needs --name and --out")
    user = args.issue_token == "user"
    if user != (args.uid is not None and args.gid is not None):
        raise ValueError("a user token needs --uid and --gid; a host token has neither")
    if args.groups and not user:
        raise ValueError("a host token has no groups")
    if args.days is not None and not 0 < args.days <= 36_500:
        raise ValueError("--days must be above 0 and at most 36500")
    return Grant(
        kind=args.issue_token,
        name=args.name,
        uid=args.uid or 0,
        gid=args.gid or 0,
        groups=tuple(int(group) for group in args.groups.split(",") if group),
        read_only=args.read_only,
        expires_ns=now_ns + round(args.days * DAY_NS) if args.days else 0,
    )
