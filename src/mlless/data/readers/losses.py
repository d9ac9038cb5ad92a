"""What is done about rows that are not as they should be: the first is an error, or a few are left out.

Leaving rows out may destroy data: where more than a few would go, or a whole class, the rows are not bad
but read in the wrong way. Then that is said, with what is wrong with most of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlless.data.readers.text import shortened
from mlless.errors import InputError

MOST = 0.01  # of the rows may be left out,
FEW = 100  # unless there are fewer rows than this


@dataclass(frozen=True, slots=True)
class Loss:
    """So many ``rows`` of which the same was expected; ``where`` and ``found`` are of the first of them."""

    rows: int
    line: int
    where: str
    expected: str
    found: bytes | str
    cure: str | None = None

    @property
    def what(self) -> str:
        """A malformed line, or row."""
        return f"malformed {self.where.rpartition(', ')[2].partition(' ')[0]}"


class Losses:
    """The rows of a source that were left out so far."""

    def __init__(self, name: str, skip: bool) -> None:
        self.name, self.skip = name, skip
        self.rows = self.lost = 0
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, Loss] = {}
        self._labels: set[int] = set()

    def take(self, rows: int, losses: Sequence[Loss], labels: NDArray[np.uint8] | None = None) -> int:
        """Count ``rows`` rows, of which ``losses`` are malformed, and return how many are malformed.

        ``labels`` are those of the other rows. InputError for the first malformed row, unless they are
        skipped.
        """
        lost = sum(loss.rows for loss in losses)
        self.rows, self.lost = self.rows + rows, self.lost + lost
        if labels is not None and len(self._labels) < 2:
            self._labels.update(np.unique(labels).tolist())
        if lost and not self.skip:
            raise self._malformed(min(losses, key=lambda loss: loss.line))
        for loss in losses:
            self._reasons[loss.expected] += loss.rows
            self._examples.setdefault(loss.expected, loss)
        return lost

    def settle(self) -> None:
        """Raise InputError if what was left out is more than a few rows, or a whole class of them."""
        if not self._too_many and not (self.lost and len(self._labels) == 1):
            return
        reason, times = self._reasons.most_common(1)[0]
        example = self._examples[reason]
        classes = "" if self._too_many else ", all of one class among them"
        raise InputError(
            f"--skip-malformed would leave out {self.lost:,} of {self.rows:,} rows{classes}; "
            f"{times:,} for one reason, the first of them {example.where.rpartition(', ')[2]}",
            where=self.name,
            expected=example.expected,
            found=shortened(example.found),
            cure=example.cure or "check the format and what its columns are",
        )

    @property
    def _too_many(self) -> bool:
        return self.lost == self.rows > 0 or (self.rows >= FEW and self.lost > MOST * self.rows)

    def _malformed(self, loss: Loss) -> InputError:
        if self._too_many:
            cure = f"{self.lost:,} of the first {self.rows:,} rows are so: check the format and the columns"
        else:
            cure = "correct it, or leave such lines out with --skip-malformed"
        return InputError(
            loss.what,
            where=loss.where,
            expected=loss.expected,
            found=shortened(loss.found),
            cure=f"{loss.cure}; or {cure}" if loss.cure and not self._too_many else loss.cure or cure,
        )
