"""PURE: which rows are of which group, and in which order they lie in its files.

Ratings are dealt by user, so that one worker at a time moves a user's row; clicks are dealt by row. Groups
are as many as balance some dozens of workers, and small enough to be held in memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlless.data.hashing import hash_numbers
from mlless.data.rows import RatingsRows, Rows

GROUPS = 480  # balance 7, 23, 24 and 64 workers within 1 to 7 percent
_LEAST_ROWS = 25  # of a group on average
BOUND = 16 << 20  # bytes of raw rows held at a time; with what it takes to sort them six times that

Places = NDArray[np.intp]
Numbers = NDArray[np.integer]
R_contra = TypeVar("R_contra", bound=Rows, contravariant=True)


class Deal(Protocol[R_contra]):
    """Says which group rows are of."""

    @property
    def groups(self) -> int:
        """The number of groups."""
        ...

    def of(self, rows: R_contra, first: int) -> Numbers:
        """Return the group of each row of a run, which begins with row number ``first`` of all."""
        ...


def groups_for(rows: int, size: int, most: int, usual: int = GROUPS) -> int:
    """Return the number of groups for ``rows`` that take ``size`` bytes: from 1 to ``most``."""
    return max(min(max(min(usual, rows // _LEAST_ROWS), -(-size // BOUND)), most), 1)


@dataclass(frozen=True)
class UserDeal:
    """The ratings of user ``n`` are of group ``group_of[n]``."""

    group_of: Numbers
    groups: int

    def of(self, rows: RatingsRows, first: int) -> Numbers:
        """Return the group of each row."""
        return self.group_of[rows.users.astype(np.intp, copy=False)]


@dataclass(frozen=True)
class RowDeal:
    """Deals rows at random: of as many consecutive rows as there are groups, each goes to another group."""

    groups: int
    seed: int

    def of(self, rows: Rows, first: int) -> Numbers:
        """Return the group of each row of a run, which begins with row number ``first`` of all."""
        state = np.random.SeedSequence([self.seed, self.groups]).generate_state(1, np.uint64)[0]
        start, end = first // self.groups, -(-(first + len(rows)) // self.groups)
        keys = hash_numbers(np.arange(start * self.groups, end * self.groups), state)
        dealt = np.argsort(keys.reshape(-1, self.groups), axis=1).ravel()
        return dealt[first - start * self.groups :][: len(rows)]


def deal_users(counts: NDArray[np.int64], groups: int) -> Numbers:
    """Return the group of each user, so that all have about as many ratings; ``counts`` are the users'.

    The users go, the one with the most ratings first, to the group that has the fewest: longest processing
    time first (Graham, 1969).
    """
    dealt = np.empty(len(counts), np.int64)
    order = np.argsort(-counts, kind="stable")
    fewest = [(0, group) for group in range(groups)]  # a heap as it stands
    for user, count in zip(order.tolist(), counts[order].tolist(), strict=True):
        load, group = fewest[0]
        dealt[user] = group
        heapq.heapreplace(fewest, (load + count, group))
    return dealt


def cut_users(counts: NDArray[np.int64], groups: int) -> Numbers:
    """Return the group of each user if users keep their order: each group has consecutive users.

    There may be fewer groups than ``groups``, because no group is without ratings.
    """
    ends = np.cumsum(counts)
    places = (2 * ends - counts) * groups // (2 * int(ends[-1]))  # where a user's middle rating lies
    used = np.unique(places[counts > 0])
    cut: Numbers = np.minimum(np.searchsorted(used, places), len(used) - 1)
    return cut


def by_group(group_of: Numbers) -> Places:
    """Return the places of rows by their group, those of one group in their order."""
    small = int(group_of.max(initial=0)) < 1 << 16
    # Of 16 bits each it takes one pass over them.
    return np.argsort(group_of.astype(np.uint16 if small else np.uint32), kind="stable")


def spread(
    group_of: Numbers, held_out: NDArray[np.bool_], groups: range, seed: int
) -> Iterator[tuple[Places, Places]]:
    """Yield for each of ``groups`` the places of its rows to train on, and of its held-out ones.

    They come in random order, which depends on ``seed``, the group, and the order of its rows.
    """
    order = by_group(group_of)
    counts = np.bincount(group_of, minlength=groups.stop)[groups.start :]
    ends = np.cumsum(counts)
    for group, start, end in zip(groups, (ends - counts).tolist(), ends.tolist(), strict=True):
        places = order[start:end]
        np.random.default_rng([seed, group]).shuffle(places)
        out = held_out[places]
        yield places[~out], places[out]
