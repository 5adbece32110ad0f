"""Grants leases, tells their holders what has changed, and says how long an answer has to wait.

All of it runs in the event loop, and the order in `announce` is the whole of the argument: who
reads after it sees the commit, who was granted before it is told of it (docs/decisions/0012).

A session's leases live as long as its stream is kept alive: its client counts from when it sent
the last keep-alive that was answered, this daemon from when it came, and it waits longer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from superfs.core.errors import Code, FsError
from superfs.meta.exclusive import Exclusives
from superfs.meta.granting import QUIET_S, Granting
from superfs.meta.heat import Heat
from superfs.meta.leases import Leases
from superfs.meta.recalls import THINGS_MAX, Recalls, Thing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from superfs.daemon.world import World
    from superfs.meta.commit import Job
    from superfs.meta.exclusive import Exclusive
    from superfs.meta.metrics import MetaMetrics
    from superfs.meta.store import Touched
    from superfs.meta.told import Listener, Telling
    from superfs.v1 import meta_pb2

SLOW_S = 1.0
"""A holder that takes longer to acknowledge"""
SLOW_TIMES, SLOW_MAX_S = 10, 60.0
"""is granted nothing for so many times as long: others have waited for it."""
RECALLS_PER_MESSAGE = 1024
News = dict[int, set[Thing] | None]
"""For one session: what it may not repeat, by lease; None: nothing of it."""


@dataclass(slots=True)
class _Tenant:
    """A session on the stream that it spoke on last."""

    listener: Listener | None
    wants: bool = False
    exclusive: bool = False  # also wants these
    kept: float = 0.0  # when its leases were prolonged


class Lessor:
    def __init__(self, world: World, metrics: MetaMetrics, timeout_s: float) -> None:
        self._world = world
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._now = world.clock.monotonic
        self._tenants: dict[int, _Tenant] = {}
        self.leases = Leases()
        self.exclusives = Exclusives()
        self.granting = Granting(self.leases, self.exclusives, world.clock.monotonic)
        self.heat = Heat()
        self.recalls = Recalls(self._now, metrics.acknowledged_seconds.observe)
        self.announced = 0
        """The last commit whose holders were told. Nobody is answered from a later one."""
        self._slow: dict[int, float] = {}
        """Sessions that are granted nothing, until when."""
        self._unannounced: list[asyncio.Future[None]] = []
        metrics.watch("leases", "Leases held", lambda: len(self.leases))
        metrics.watch("lease_holders", "Sessions that hold any", lambda: self.leases.sessions)
        metrics.watch("exclusive_leases", "Exclusive leases held", lambda: len(self.exclusives))
        metrics.watch(
            "leases_refused", "Leases not granted now", lambda: self.heat.refused(self._now())
        )

    # ---- streams

    def begin(self, session: int, listener: Listener | None) -> None:
        """A hello has come: the client has forgotten everything. Grants nothing yet."""
        before = self._tenants.get(session)
        if before is not None and before.listener is not None:
            before.listener.close("the session has another stream by now")
        asked = self.recalls.asked_since(session)
        self.exclusives.settle(session, (self._now() if asked is None else asked) + self._timeout_s)
        self._drop(session)
        self._tenants[session] = _Tenant(listener)

    def welcome(
        self, session: int, listener: Listener | None, wants: bool, exclusive: bool = False
    ) -> None:
        """What it wants is on record. UNAVAILABLE if a newer stream has come meanwhile."""
        tenant = self._tenants.get(session)
        if tenant is None or tenant.listener is not listener:
            raise FsError(Code.UNAVAILABLE, "the session has another stream by now")
        tenant.wants = wants
        tenant.exclusive = exclusive
        tenant.kept = self._now()
        if not exclusive:
            self.exclusives.end(session)
        if listener is None:
            del self._tenants[session]

    def hung_up(self, session: int, listener: Listener | None) -> None:
        """The leases stand until the next hello: the client may not have noticed."""
        tenant = self._tenants.get(session)
        if tenant is not None and tenant.listener is listener:
            tenant.listener = None
            if not tenant.wants:
                del self._tenants[session]

    def keep_alive(self, session: int, listener: Listener) -> None:
        """Comes before the answer to it. UNAVAILABLE on a stream that counts no more."""
        tenant = self._tenants.get(session)
        if tenant is None or tenant.listener is not listener:
            raise FsError(Code.UNAVAILABLE, "this stream is over: say hello")
        tenant.kept = self._now()

    def acknowledged(self, session: int, listener: Listener, number: int) -> None:
        tenant = self._tenants.get(session)
        if tenant is not None and tenant.listener is listener:
            took_s = self.recalls.acknowledged(session, number)
            if took_s > SLOW_S:
                self._is_slow(session, took_s)

    def _is_slow(self, session: int, seconds: float) -> None:
        until = self._now() + min(SLOW_TIMES * seconds, SLOW_MAX_S)
        self._slow[session] = max(until, self._slow.get(session, 0.0))

    def returned(
        self,
        session: int,
        listener: Listener,
        leases: Iterable[int],
        exclusive: Iterable[int] = (),
    ) -> None:
        """`exclusive`: only the right to change it."""
        tenant = self._tenants.get(session)
        if tenant is not None and tenant.listener is listener:
            for lease in leases:
                self.leases.give_up(session, lease)
                self.exclusives.give_up(session, lease)
            for lease in exclusive:
                self.exclusives.give_up(session, lease)

    def settled(self, session: int, listener: Listener) -> bool:
        """It has shipped all that it did before its hello. False from a stream that counts no
        more."""
        tenant = self._tenants.get(session)
        if tenant is None or tenant.listener is not listener:
            return False
        if self.exclusives.is_settling(session):
            self.exclusives.end(session)
        return True

    def end(self, session: int) -> None:
        """The session is over."""
        self._tenants.pop(session, None)
        self._slow.pop(session, None)
        self.leases.forget(session)
        self.recalls.forget(session)
        self.exclusives.end(session)

    def _drop(self, session: int) -> None:
        self.leases.forget(session)
        self.recalls.drop(session)

    # ---- silence

    def excuse(self, seconds: float) -> None:
        """So long nobody could be heard."""
        for tenant in self._tenants.values():
            tenant.kept += seconds
        self.recalls.excuse(seconds)
        self.exclusives.excuse(seconds)

    def tick(self, now: float) -> None:
        self.heat.cool(now)
        self._slow = {session: until for session, until in self._slow.items() if now < until}
        limit = now - self._timeout_s
        for session, tenant in list(self._tenants.items()):
            if tenant.wants and tenant.kept < limit:
                self._world.log.info("leases ran out", session=f"{session:#x}")
                self._close(tenant, "the leases ran out: say hello")
                del self._tenants[session]
                self._drop(session)
                self.exclusives.end(session)
        for session in self.exclusives.expire(now):
            self._world.log.info("did not settle in time", session=f"{session:#x}")
        for session in self.recalls.unanswered_since(limit):
            # It lives, and does not do its part. Without a stream it cannot keep its leases.
            late = self._tenants.get(session)
            if late is not None and late.listener is not None:
                self._world.log.warning("no acknowledgement", session=f"{session:#x}")
                self._is_slow(session, self._timeout_s)
                self._close(late, "an invalidation was not acknowledged: say hello")

    def _close(self, tenant: _Tenant, reason: str) -> None:
        if tenant.listener is not None:
            tenant.listener.close(reason)
            tenant.listener = None

    # ---- answers

    def wanting(self) -> set[int]:
        """Sessions that are granted leases. In any thread."""
        return {session for session, tenant in list(self._tenants.items()) if tenant.wants}

    def is_behind(self, commit: int) -> bool:
        """Whether an answer from this commit may have to wait."""
        return commit > self.announced or bool(self.recalls)

    def needs(self, telling: Telling, commit: int) -> bool:
        """Whether it matters what an answer from this commit tells."""
        return telling.listener is not None or self.is_behind(commit)

    def grant(self, telling: Telling) -> None:
        """In the same turn of the loop as what it tells was read."""
        tenant = self._tenants.get(telling.session)
        if telling.listener is None or tenant is None or not tenant.wants:
            return
        if tenant.listener is not telling.listener:
            return
        if self.recalls.is_slow(telling.session):
            return
        if self._slow and self._now() < self._slow.get(telling.session, 0.0):
            return
        new = telling.leases - telling.granted if telling.granted else set(telling.leases)
        if self.exclusives:
            new = {lease for lease in new if not self.exclusives.closed(lease, telling.session)}
        if self.heat:
            now = self._now()
            new = {lease for lease in new if not self.heat.refuses(lease, now)}
        stays = self.exclusives.holds if self.exclusives else None
        lost = self.leases.grant(telling.session, new, self._now(), stays)
        telling.granted = telling.granted | new if telling.granted else new
        if lost:
            self._push(telling.session, dict.fromkeys(lost))

    # ---- what is held exclusively

    async def opened(self, leases: Iterable[int], session: int) -> None:
        """Until none of these is held exclusively by somebody else: who does ships first."""
        found = self.exclusives.to_recall(leases, session)
        for holder, exclusives in found.items():
            if not self.exclusives.is_settling(holder):
                fresh = [e for e in exclusives if not e.recalled]
                for start in range(0, len(fresh), RECALLS_PER_MESSAGE):
                    self._recall(holder, fresh[start : start + RECALLS_PER_MESSAGE])
        await self.exclusives.gone(e for part in found.values() for e in part)

    def _recall(self, holder: int, exclusives: list[Exclusive]) -> None:
        now = self._now()
        for exclusive in exclusives:
            exclusive.recalled = True
            self.granting.recalled(exclusive.lease, now)
        self._metrics.exclusive_recalls.inc(len(exclusives))

        def answered() -> None:
            for exclusive in exclusives:
                self.exclusives.drop(exclusive)

        invalidate = self.recalls.add_exclusive(
            holder, self.announced, [e.lease for e in exclusives], answered
        )
        self._send(holder, invalidate)

    def _send(self, session: int, invalidate: meta_pb2.Invalidate) -> None:
        tenant = self._tenants.get(session)
        if tenant is not None and tenant.listener is not None:
            tenant.listener.push(invalidate)
            self._metrics.invalidations.inc()

    def recheck(self, session: int, reply: meta_pb2.BatchReply) -> None:
        """Right before an answer is sent: what it grants may have been recalled since."""
        if reply.exclusive:
            may_use = self.exclusives.may_use
            reply.exclusive[:] = [lease for lease in reply.exclusive if may_use(session, lease)]

    def _confirm(self, telling: Telling) -> None:
        session = telling.session
        tenant = self._tenants.get(session)
        lives = tenant is not None and tenant.exclusive
        may = tenant is not None and lives and tenant.listener is telling.listener
        may = may and not self.exclusives.is_settling(session)
        self._metrics.exclusive_grants.inc(self.granting.confirm(telling, may=may, lives=lives))

    # ---- answers that wait

    async def ready(self, telling: Telling, commit: int) -> None:
        """An answer may not show what another client may still deny."""
        while commit > self.announced:
            future = asyncio.get_running_loop().create_future()
            self._unannounced.append(future)
            await future
        pending = self.recalls.settled(
            None if telling.replayed else telling.leases, telling.session
        )
        if pending is not None:
            await pending

    # ---- commits

    def announce(
        self,
        commit: int,
        jobs: Sequence[Job],
        touched: Sequence[Touched],
        removed: Collection[int] = (),
    ) -> None:
        """A transaction has become durable. `touched`: by each job; `removed`: directories."""
        assert commit >= self.announced, (commit, self.announced)
        self.announced = commit
        for lease in removed:
            self.exclusives.removed(lease)
        for job in jobs:
            if job.telling is not None and job.telling.listener is not None:
                self.grant(job.telling)
        for job in jobs:
            if job.telling is not None and job.telling.exclusives:
                self._confirm(job.telling)
        if self.leases:
            for session, news in self._news(jobs, touched).items():
                self._push(session, news)
        if self.recalls:
            for job, things in zip(jobs, touched, strict=True):
                if job.telling is not None:
                    self._hold(job.telling, things)
        waiting, self._unannounced = self._unannounced, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _hold(self, telling: Telling, things: Touched) -> None:
        """Until everybody else has let go of what the job changed or tells about."""
        telling.leases.update(lease for lease, _ in things)
        telling.pending = self.recalls.settled(
            None if telling.replayed else telling.leases, telling.session
        )

    def _news(self, jobs: Sequence[Job], touched: Sequence[Touched]) -> dict[int, News]:
        """By session. What it asked for itself is no news to it, if it still listens where it
        asked: on a stream before, it may have given up waiting for the answer."""
        by_lease: dict[int, dict[int, set[Thing]]] = {}
        for job, things in zip(jobs, touched, strict=True):
            session = self._asker(job.telling)
            for lease, thing in things:
                if lease in self.leases:
                    by_lease.setdefault(lease, {}).setdefault(session, set()).add(thing)
        found: dict[int, News] = {}
        now = self._now()
        sought = set().union(*(job.telling.sought for job in jobs if job.telling is not None))
        for lease, by_session in by_lease.items():
            holders = self.leases.holders(lease)
            others = [h for h in holders if len(by_session) > 1 or h not in by_session]
            hot = (
                bool(others)
                and lease not in self.exclusives.held
                and self.heat.count(lease, others, by_session, now)
            )
            if hot:
                self._metrics.lease_refusals.inc()
            quiet = lease in sought and all(
                now - self.leases.granted_at(holder, lease) > QUIET_S for holder in others
            )
            for holder in holders if hot else others:
                news: set[Thing] | None = None
                if not (hot or quiet):
                    news = set().union(*(t for s, t in by_session.items() if s != holder))
                found.setdefault(holder, {})[lease] = news
        return found

    def _asker(self, telling: Telling | None) -> int:
        tenant = self._tenants.get(telling.session) if telling is not None else None
        if telling is None or tenant is None or tenant.listener is not telling.listener:
            return 0
        return telling.session

    def _push(self, session: int, news: News) -> None:
        slow = self.recalls.is_slow(session)
        for lease, things in news.items():
            if self.exclusives.holds(session, lease):
                continue  # the daemon itself has changed something: the end of a truncation
            if things is None or len(things) > THINGS_MAX or slow:
                news[lease] = None
                self.leases.give_up(session, lease)
        self._send(session, self.recalls.add(session, self.announced, news))
