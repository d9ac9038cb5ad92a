"""Made-up clicks in Criteo's layout: 13 whole numbers and 26 categories, some missing, and a known model.

Nothing here holds more than a block of rows. The weight of a category is not stored but follows from the hash
of its column and number. So columns of ten million values cost no memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlless.data.digits import hexadecimal, lines, whole
from mlless.data.hashing import mix
from mlless.data.progress import ShowProgress
from mlless.data.synthetic import text_file
from mlless.errors import UsageError

ROWS = 1 << 15  # made at a time
# How many values the categorical columns of Criteo's Display Advertising Challenge have.
VALUES = (
    1_460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5_683, 8_351_593, 3_194,
    27, 14_992, 5_461_306, 10, 5_652, 2_173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572,
)  # fmt: skip
NUMERIC = 13
_SKEW = 1.1  # exponent of the popularity of a column's values
_SHARE = 0.25  # of label 1
_PRECISION = 2.0**-53


def write_columns(
    path: str | Path, *, rows: int, seed: int = 0, progress: ShowProgress | None = None
) -> float:
    """Write clicks in Criteo's layout and return the log loss of the model behind them.

    The log-odds of a click are a sum of the logarithms of the numbers, of an amount for each missing one, and
    of a weight for each category. About a quarter of the labels are 1. ``progress`` is called with the share
    that is written.
    """
    if rows < 1:
        raise UsageError("no such table of clicks", expected="at least 1 row", found=f"{rows} rows")
    random = np.random.default_rng(seed)
    numbers, categories = _Numbers(random), _Categories(random)
    intercept = _intercept(numbers.draw(random, ROWS)[0] + categories.draw(random, ROWS)[0])
    loss = 0.0
    with text_file(Path(path)) as file:
        for start in range(0, rows, ROWS):
            count = min(ROWS, rows - start)
            logits, blocks = numbers.draw(random, count)
            more, others = categories.draw(random, count)
            logits += more + intercept
            clicks = random.random(count) < 1.0 / (1.0 + np.exp(-logits))
            loss += float(np.logaddexp(0.0, np.where(clicks, -logits, logits)).sum())
            columns = (whole(clicks.astype(np.int64)), *blocks, *others)
            separated = [part for column in columns for part in (b"\t", column)]
            file.write(lines([*separated[1:], b"\n"]))
            if progress:
                progress((start + count) / rows, "writing")
    return loss / rows


def _intercept(logits: NDArray[np.float64]) -> float:
    """Return what has to be added to log-odds for a mean probability of `_SHARE`."""
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        if float((1.0 / (1.0 + np.exp(-logits - middle))).mean()) < _SHARE:
            low = middle
        else:
            high = middle
    return low


class _Numbers:
    """Log-normal whole numbers; one column goes below 0, as in Criteo's logs."""

    def __init__(self, random: np.random.Generator) -> None:
        self._centre = random.uniform(0.5, 5.0, NUMERIC)
        self._spread = random.uniform(0.8, 1.6, NUMERIC)
        self._missing = random.choice([0.0, 0.05, 0.2, 0.45], NUMERIC)
        self._offset = np.zeros(NUMERIC)
        self._offset[1] = 3.0
        self._weight = random.normal(0.0, 0.3, NUMERIC)
        self._weight_missing = random.normal(0.0, 0.3, NUMERIC)

    def draw(
        self, random: np.random.Generator, rows: int
    ) -> tuple[NDArray[np.float64], list[NDArray[np.uint8]]]:
        """Return what the numbers add to the log-odds, and the numbers as text."""
        normal = np.clip(random.standard_normal((rows, NUMERIC)), -4.0, 4.0)
        number = np.floor(np.exp(self._centre + self._spread * normal)) - self._offset
        missing = random.random((rows, NUMERIC)) < self._missing
        # What the model sees is the number as written, so that the floor is one that can be reached.
        seen = np.copysign(np.log1p(np.abs(number)), number) - self._centre
        logits = np.where(missing, self._weight_missing, self._weight * seen).sum(axis=1)
        wide = number.astype(np.int64)
        return logits, [whole(wide[:, n], ~missing[:, n]) for n in range(NUMERIC)]


class _Categories:
    """Values of a power law of popularity, with a weight for each."""

    def __init__(self, random: np.random.Generator) -> None:
        columns = len(VALUES)
        self._missing = random.choice([0.0, 0.0, 0.03, 0.4], columns)
        self._weight = random.uniform(0.1, 0.45, columns)
        self._salt = random.integers(0, 1 << 63, columns, np.uint64)
        ends = (np.array(VALUES, np.float64) + 1.0) ** (1.0 - _SKEW)
        self._reach = ends - 1.0

    def draw(
        self, random: np.random.Generator, rows: int
    ) -> tuple[NDArray[np.float64], list[NDArray[np.uint8]]]:
        """Return what the categories add to the log-odds, and the categories as text."""
        logits = np.zeros(rows)
        blocks = []
        for column, values in enumerate(VALUES):
            # The inverse of the distribution function of a power law from 1 to values + 1.
            place = (1.0 + random.random(rows) * self._reach[column]) ** (1.0 / (1.0 - _SKEW))
            value = np.minimum(place, values).astype(np.uint64)
            hashed = mix(value ^ self._salt[column])
            there = random.random(rows) >= self._missing[column]
            # Bits as a uniform number, of variance 1: a weight that belongs to the value for good.
            weight = ((hashed >> np.uint64(11)) * _PRECISION - 0.5) * np.sqrt(12.0)
            logits += np.where(there, weight * self._weight[column], 0.0)
            blocks.append(hexadecimal((mix(hashed) >> np.uint64(32)).astype(np.uint32), there))
        return logits, blocks
