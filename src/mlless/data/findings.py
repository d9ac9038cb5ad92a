"""PURE: what gives reason to doubt a data set, told when it is made, trained on or fitted to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mlless.data.features import ABSENT
from mlless.data.groups import Group, RatingsGroup
from mlless.data.manifest import Clicks, Finding, Manifest, Ratings
from mlless.errors import InputError

_NEARLY_ALL = 0.99
_FEW_ROWS = 100
_FEW_OF_A_LABEL = 10
_NAMES = 5  # that are told
_NEARLY_EACH = 0.95
_HASHES = 1 << 18  # told apart


class Survey:
    """Counts what the groups of a data set hold, as they are made: ``findings`` says what to doubt.

    ``judges`` says that all rows are to judge a model by, those of a test set.
    """

    def __init__(self, *, judges: bool = False) -> None:
        self.judges = judges
        self._rows = self._held_out = 0
        self._usual: float | None = None
        self._usual_rows = self._usual_held_out = 0
        self._users, self._items = _Times(), _Times()

    def add(self, group: Group, *, held_out: bool) -> None:
        """Take in rows of a group, at least one, which are ``held_out`` or to train on."""
        values: NDArray[np.generic]
        if isinstance(group, RatingsGroup):
            values = group.ratings
            self._users.add(group.users)
            self._items.add(group.items)
        else:
            values = group.labels
        if self._usual is None:
            # What nearly all rows are is the most frequent in any group.
            distinct, times = np.unique(values, return_counts=True)
            self._usual = distinct[times.argmax()].item()
        usual = int((values == self._usual).sum())
        self._rows += len(group)
        self._usual_rows += usual
        if held_out or self.judges:
            self._held_out += len(group)
            self._usual_held_out += usual

    def findings(
        self, shape: Ratings | Clicks, *, validation: float = 0.0, repeats: int = 0, largest_group: int = 0
    ) -> Iterator[Finding]:
        """Yield what to doubt. ``validation`` is the share that was to be held out.

        ``repeats`` ratings are of a pair that was there before; no pair has more than ``largest_group``.
        """
        if not self.judges:
            yield from self._of_values(shape)
            if isinstance(shape, Ratings):
                yield from self._seldom()
        if repeats:
            yield Finding(
                "repeats",
                f"{repeats:,} of {self._rows:,} ratings repeat a pair of user and item, one pair is there "
                f"{largest_group:,} times: each counts. Leave all but one of a pair out if only one is meant",
            )
        if self._held_out:
            yield from self._of_held_out(shape)
        elif validation:
            yield Finding(
                "held-out",
                "nothing is held out, for there are too few rows or too few pairs of user and item: "
                "the model is checked on nothing. Hold out a larger share, or gather more rows",
            )

    def _of_values(self, shape: Ratings | Clicks) -> Iterator[Finding]:
        share = self._usual_rows / self._rows
        if isinstance(shape, Ratings) and share == 1.0:
            yield Finding(
                "equal",
                f"all {self._rows:,} ratings are {self._usual:g}: a model can only predict that. "
                "Check that the right column is the rating",
            )
        elif isinstance(shape, Ratings) and share >= _NEARLY_ALL:
            yield Finding(
                "lopsided",
                f"{_percent(share)} of the ratings are {self._usual:g}: compare the model's rmse with "
                f"{shape.deviation:.4f}, which the mean alone reaches",
            )
        elif isinstance(shape, Clicks) and _NEARLY_ALL <= share < 1.0:
            entropy = -share * math.log(share) - (1 - share) * math.log1p(-share)
            yield Finding(
                "lopsided",
                f"{_percent(share)} of the rows are of one label: judge the model by auc. A constant reaches "
                f"a log_loss of {entropy:.4f} on all rows, of more or less on the held-out ones",
            )

    def _seldom(self) -> Iterator[Finding]:
        for times, who, other in ((self._users, "users", "item"), (self._items, "items", "user")):
            once, known = times.once()
            if 2 * once > known:
                yield Finding(
                    "seldom",
                    f"{once:,} of {known:,} {who} have a single rating: predictions for them come down to "
                    f"the {other}'s bias. Leave them out, or gather more of their ratings",
                )

    def _of_held_out(self, shape: Ratings | Clicks) -> Iterator[Finding]:
        rows = self._held_out
        what = f"only {rows:,} rows are there to judge a model by"
        cure = "Gather more" if self.judges else "Hold out a larger share, or gather more"
        if isinstance(shape, Ratings):
            if rows < _FEW_ROWS:
                error = _percent(1 / math.sqrt(2 * rows))
                yield Finding("held-out", f"{what}: rmse on them has a standard error of {error}. {cure}")
            return
        rarer = min(self._usual_held_out, rows - self._usual_held_out)
        if not rarer:
            yield Finding(
                "held-out",
                f"all {rows:,} rows to judge a model by are of one label: auc has no value. {cure}",
            )
        elif rows < _FEW_ROWS or rarer < _FEW_OF_A_LABEL:
            # Of the auc of a model that knows nothing (Hanley and McNeil, Radiology, 1982).
            error = f"{math.sqrt((rows + 1) / (12 * rarer * (rows - rarer))):.2f}"
            what = what if rows < _FEW_ROWS else f"{rows:,} rows are there to judge a model by"
            yield Finding(
                "held-out",
                f"{what}, {rarer} of the rarer label: auc has a standard error of up to {error}. {cure}",
            )


class _Times:
    """How often each row of a table occurs."""

    def __init__(self) -> None:
        self._times = np.zeros(0, np.uint32)

    def add(self, rows: NDArray[np.uint32]) -> None:
        """Count the ``rows``, at least one."""
        most = int(rows.max())
        if most >= len(self._times):
            self._times = np.pad(self._times, (0, max(most + 1, 2 * len(self._times)) - len(self._times)))
        np.add.at(self._times, rows, np.uint32(1))

    def once(self) -> tuple[int, int]:
        """Return how many rows occur once, and how many at all."""
        return int((self._times == 1).sum()), int((self._times > 0).sum())


class ColumnSurvey:
    """Finds the columns of a table that say nothing: the same in every row, or missing in all."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = np.array(names, object)
        self._first: NDArray[np.generic] | None = None
        self._left = np.arange(len(names))  # the columns that are the same in every row so far

    def add(self, values: NDArray[np.generic]) -> None:
        """Take in rows, a column a name."""
        if not len(values) or not len(self._left):
            return
        if self._first is None:
            self._first = values[0]
        some, first = values[:, self._left], self._first[self._left]
        same = (some == first) | ((some != some) & (first != first))  # NaN does not equal itself
        self._left = self._left[same.all(axis=0)]

    def findings(self, missing: float) -> Iterator[Finding]:
        """Yield the columns that say nothing, where ``missing`` stands for a value that is missing."""
        if self._first is None:
            return
        first = self._first[self._left]
        absent = (first == missing) | (first != first)
        for kind, which, what in (
            ("missing", absent, "missing in every row"),
            ("constant", ~absent, "the same in every row"),
        ):
            names = self._names[self._left[which]].tolist()
            yield from _of_columns(
                kind, names, f"{what}, so nothing is learnt from it. Check the source, or leave it out"
            )


class RepeatSurvey:
    """Finds the columns of categories that are different in nearly every row.

    It counts the hashes that occur, which is enough to tell up to twice as many rows as there are hashes.
    """

    def __init__(self, names: Sequence[str], hashed: int) -> None:
        self._names, self._hashed = names, hashed
        self._seen = np.zeros((len(names), min(hashed, _HASHES)), np.bool_)
        self._rows = np.zeros(len(names), np.int64)
        self._left = np.arange(len(names))  # the columns that may be such ones

    def add(self, hashes: NDArray[np.uint32]) -> None:
        """Take in rows, a column a name; `ABSENT` is no value."""
        for place in self._left.tolist():
            values = hashes[:, place][hashes[:, place] != ABSENT].astype(np.uint64)
            seen = self._seen[place]
            seen[values * np.uint64(len(seen)) // np.uint64(self._hashed)] = True
            self._rows[place] += len(values)
        size, rows = self._seen.shape[1], self._rows[self._left]
        distinct = -size * np.expm1(-rows / size)  # to be expected if no value occurs twice
        repeat = self._seen[self._left].sum(axis=1) < _NEARLY_EACH * distinct
        self._left = self._left[(rows <= 2 * size) & ~(repeat & (rows >= _FEW_ROWS))]

    def findings(self) -> Iterator[Finding]:
        """Yield the columns of which new rows will hold new values."""
        names = [self._names[place] for place in self._left.tolist() if self._rows[place] >= _FEW_ROWS]
        yield from _of_columns(
            "unique", names, "different in nearly every row, so it tells nothing of new rows. Leave it out"
        )


def _of_columns(kind: str, names: Sequence[str], what: str) -> Iterator[Finding]:
    if names:
        more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
        columns = "column" if len(names) == 1 else "columns"
        yield Finding(kind, f"{columns} {', '.join(names[:_NAMES])}{more}: {what}")


def check_two_classes(manifest: Manifest, where: str) -> None:
    """Raise InputError if all clicks to train on are of one label."""
    shape = manifest.shape
    if isinstance(shape, Clicks) and shape.positives in (0.0, 1.0):
        rows = sum(file.rows for file in manifest.train)
        raise InputError(
            "only one class",
            where=where,
            expected="rows of label 0 and of label 1 to train on",
            found=f"{rows:,} rows, all of label {shape.positives:g}",
            cure="check the label column, or add rows of the other label; if all of them are held out, "
            "partition with another seed",
        )


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
