"""PURE: who takes part in which step, who owns which groups, and which part of an epoch a step trains on.

An epoch has n parts, and n stays as it is until the epoch ends. A step trains on one part of every group,
whoever owns the group. So the owners may change at any step, and every row is still used exactly once an
epoch.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
from numpy.random import PCG64, Generator  # loaded here, once, not in every forked worker
from numpy.typing import NDArray

from mlless.job import JobSpec
from mlless.messages import Plan

Ints = NDArray[np.int64]
_OWNER = np.dtype("<u2")
_GOLDEN = 0x9E3779B9  # of 2^32


def parts_of(rows: int, batch_size: int, workers: int) -> int:
    """Return the parts of an epoch in which each of ``workers`` takes about ``batch_size`` rows a step."""
    return max(1, round(rows / (batch_size * workers)))


@lru_cache(maxsize=4)
def order_of(seed: int, epoch: int, parts: int) -> tuple[int, ...]:
    """Return the order in which the steps of an epoch take its parts."""
    return tuple(Generator(PCG64([seed, epoch])).permutation(parts).tolist())


def bounds_of(groups: Ints, sizes: Ints, part: int, parts: int) -> tuple[Ints, Ints]:
    """Return where a part begins and ends in the groups of these numbers, which have ``sizes`` rows.

    The parts of a group differ by a row at most. Which of them have the row more differs from group to group,
    so that several groups together give parts of about one size, too. Multiples of the golden section spread
    evenly over the parts (Knuth, The Art of Computer Programming, section 6.4).
    """
    shifts = (groups * _GOLDEN % (1 << 32) * parts) >> 32
    return (part * sizes + shifts) // parts, ((part + 1) * sizes + shifts) // parts


def owners_of(owners: bytes) -> list[int]:
    """Return the owner of each group."""
    numbers: list[int] = np.frombuffer(owners, _OWNER).tolist()
    return numbers


def groups_of(owners: bytes, worker: int) -> tuple[int, ...]:
    """Return the groups that a worker owns, in ascending order."""
    return tuple(np.flatnonzero(np.frombuffer(owners, _OWNER) == worker).tolist())


def deal(sizes: Sequence[int], workers: Iterable[int], owners: bytes = b"") -> bytes:
    """Return the owner of each group, two bytes a group, so that all ``workers`` own about as many rows.

    Workers that own some groups keep them. The other groups go, the largest first, to the worker that has the
    least: longest processing time first (Graham, 1969).
    """
    owned = np.frombuffer(owners, _OWNER).copy() if owners else np.full(len(sizes), 0xFFFF, _OWNER)
    loads = dict.fromkeys(workers, 0)
    free = []
    for group, owner in enumerate(owned.tolist()):
        if owner in loads:
            loads[owner] += sizes[group]
        else:
            free.append(group)
    least = [(load, worker) for worker, load in loads.items()]
    heapq.heapify(least)
    for group in sorted(free, key=lambda group: (-sizes[group], group)):
        load, worker = least[0]
        owned[group] = worker
        heapq.heapreplace(least, (load + sizes[group], worker))
    return owned.tobytes()


def leaves(worker: int, plan: Plan, later: Plan) -> bool:
    """Return whether a worker trains in a step and, while others go on, no more in the ``later`` one."""
    return worker in plan.trainers and worker in later.flush and bool(later.trainers)


@dataclass(frozen=True)
class Schedule:
    """The steps of a job over groups of so many training rows, its ``sizes``, from first to last.

    From epoch ``since`` on a step has up to so many mini-batches of each worker: ``local_steps``. The last
    one of an epoch may be short. The last three kinds of step are: everyone's flush, a step in which all
    score the finished model and nobody trains, and nothing more.
    """

    sizes: Sequence[int]
    batch_size: int
    epochs: int
    local_steps: int = 1
    since: int = 0

    @classmethod
    def of(cls, spec: JobSpec, sizes: Sequence[int]) -> Schedule:
        """Return the steps of a job over groups of so many training rows."""
        return cls(sizes, spec.batch_size, spec.stop.epochs, spec.local_steps, spec.local_since)

    def first(self, workers: int) -> Plan:
        """Return the plan of step 0: everyone, from the start of the first epoch, with an evaluation."""
        members, parts = tuple(range(workers)), self._parts(workers)
        owners = deal(self.sizes, members)
        return Plan(0, members, 0, parts, 0, owners, evaluate=True, length=self._length(0, 0, parts))

    def after(self, before: Plan, leavers: Collection[int] = (), *, end: bool = False) -> Plan | None:
        """Return the plan that follows ``before``, or None if that was the last.

        ``leavers`` flush in it; so does everyone if the job is to ``end`` or the epochs are used up.
        An evaluation is due in the first step of each epoch.
        """
        members, step = before.trainers, before.step + 1
        if before.last:
            return None
        if not members:
            return msgspec.structs.replace(before, step=step, flush=(), evaluate=True, last=True)
        epoch, part = divmod(before.epoch * before.parts + before.part + before.length, before.parts)
        everyone = end or epoch >= self.epochs or set(members) <= set(leavers)
        flush = members if everyone else tuple(member for member in members if member in leavers)
        stay = members if everyone else tuple(member for member in members if member not in flush)
        parts = before.parts if part or everyone else self._parts(len(stay))
        return Plan(
            step,
            members,
            epoch,
            parts,
            part,
            deal(self.sizes, stay, before.owners) if stay != members else before.owners,
            flush,
            evaluate=part == 0 and not everyone,
            length=1 if everyone else self._length(epoch, part, parts),
            beyond=before.beyond + before.length - 1,
        )

    def onward(
        self, planned: Plan, lost: Collection[int], leavers: Collection[int], *, end: bool
    ) -> tuple[Plan, Plan | None]:
        """Return the plans of the next two steps, the next one ``planned`` before some were ``lost``.

        The other arguments are those of ``after``.
        """
        following = self.without(planned, lost) if lost else planned
        stay = set(following.trainers) - set(leavers)  # nobody may, where others were lost
        return following, self.after(following, leavers if stay else (), end=end)

    def without(self, plan: Plan, lost: Collection[int]) -> Plan:
        """Return the plan with the ``lost`` left out; their groups go to whoever stays and has the least."""
        members = tuple(member for member in plan.members if member not in lost)
        flush = tuple(member for member in plan.flush if member not in lost)
        stay = tuple(member for member in members if member not in flush) or members
        owners = deal(self.sizes, stay, plan.owners)
        return msgspec.structs.replace(plan, members=members, flush=flush, owners=owners)

    def dealt(self, plan: Plan, workers: int) -> Plan:
        """Return the plan with so many workers, from 0 on, whatever had been decided of those of before.

        An epoch that has begun keeps its parts: every row is still used exactly once in it.
        """
        members = tuple(range(workers))
        if members == plan.members and not plan.flush:
            return plan
        parts = plan.parts if plan.part else self._parts(workers)
        owners, length = deal(self.sizes, members), self._length(plan.epoch, plan.part, parts)
        return msgspec.structs.replace(
            plan, members=members, parts=parts, owners=owners, flush=(), length=length
        )

    def abandoned(self, plan: Plan) -> Plan:
        """Return the last step of a job whose model has come to nothing after ``plan``: nothing to score."""
        members = plan.trainers or plan.members
        return msgspec.structs.replace(
            plan, step=plan.step + 1, members=members, flush=(), evaluate=False, last=True
        )

    def _length(self, epoch: int, part: int, parts: int) -> int:
        """Return how many mini-batches a step has that begins with a part of an epoch."""
        return min(self.local_steps, parts - part) if epoch >= self.since else 1

    def _parts(self, workers: int) -> int:
        return parts_of(sum(self.sizes), self.batch_size, workers)


def told(before: bytes, plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """Return consecutive plans, each without the owners of groups if the step before has the same ones.

    So there is less to send. ``before`` are the owners of the step before the first plan. ``understood`` is
    the way back.
    """
    brief = []
    for plan in plans:
        brief.append(msgspec.structs.replace(plan, owners=b"") if plan.owners == before else plan)
        before = plan.owners
    return tuple(brief)


def understood(before: bytes, plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """Return consecutive plans, as ``told``, with their owners."""
    whole = []
    for plan in plans:
        before = plan.owners or before
        whole.append(msgspec.structs.replace(plan, owners=before))
    return tuple(whole)
