"""PURE: who takes part in which step, and who trains on which mini-batch.

Positions run through an endless stream of per-epoch permutations made from the seed. Whoever
joins or leaves, the positions of consecutive steps follow on one another without gap or overlap,
so every mini-batch is used exactly once an epoch.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import numpy as np
from numpy.random import PCG64, Generator  # loaded here, once, not in every forked worker
from numpy.typing import NDArray

from mlless.messages import Plan


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, batches: int) -> NDArray[np.int64]:
    return Generator(PCG64([seed, epoch])).permutation(batches)


def batch_at(position: int, *, batches: int, seed: int) -> int:
    """Return the index of the mini-batch at a stream position."""
    epoch, place = divmod(position, batches)
    return int(_permutation(seed, epoch, batches)[place])


def position_of(plan: Plan, worker: int) -> int | None:
    """Return the stream position a member trains on in this step; None if it flushes."""
    trainers = plan.trainers
    return plan.position + trainers.index(worker) if worker in trainers else None


def first_plan(workers: int) -> Plan:
    """Return the plan of step 0: everyone, from the start of the stream, with an evaluation."""
    return Plan(step=0, members=tuple(range(workers)), position=0, evaluate=True)


def next_plan(
    before: Plan, *, batches: int, epochs: int, leavers: Collection[int] = (), end: bool = False
) -> Plan | None:
    """Return the plan that follows ``before``, or None if ``before`` was everyone's flush.

    ``leavers`` flush in it; so does everyone if the job is to ``end`` or the epochs are used up.
    An evaluation is due once an epoch, at the first step that starts in it.
    """
    members = before.trainers
    if not members:
        return None
    position = before.position + len(members)
    everyone = end or position >= batches * epochs or set(members) <= set(leavers)
    flush = members if everyone else tuple(member for member in members if member in leavers)
    return Plan(
        step=before.step + 1,
        members=members,
        position=position,
        flush=flush,
        evaluate=not everyone and position // batches > before.position // batches,
    )
