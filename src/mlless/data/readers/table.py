"""Some rows of a table, whatever they were read from, and how malformed ones are sorted out."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlless.data.readers.losses import Loss

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class Plan:
    """Which columns of a table are wanted: their ``places`` among ``count``.

    ``header`` holds the names in the first row of text, None if that is a row like the others.
    """

    places: Sequence[int]
    count: int
    header: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one part of a source.

    Attributes
    ----------
    columns
        The wanted columns, as planned.
    numbers
        The number of each row in the source, from 0; malformed rows count, too.
    lines
        Where in the part each row is, from 1; ``unit`` says what is counted: lines, or rows.
    rows
        How many rows these were, with the malformed ones.
    losses
        Why some rows are missing here.
    done
        The bytes of the source, as they are stored, that are then read.
    """

    columns: list[pyarrow.Array]
    numbers: NDArray[np.int64]
    lines: NDArray[np.int64]
    unit: str
    part: str
    rows: int
    losses: list[Loss]
    done: int

    def place(self, row: int) -> str:
        """Return where a row is, in words."""
        return f"{self.part}, {self.unit} {self.lines[row]}"


@dataclass
class Sieve:
    """The rows of a batch that are ``good`` so far, and why the others are not."""

    batch: Batch
    good: NDArray[np.bool_] = field(init=False)
    losses: list[Loss] = field(init=False)
    dropped: int = 0

    def __post_init__(self) -> None:
        """Start with all rows."""
        self.good = np.ones(len(self.batch.lines), np.bool_)
        self.losses = list(self.batch.losses)

    def need(
        self, usable: NDArray[np.bool_], column: pyarrow.Array, expected: str, cure: str | None = None
    ) -> None:
        """Take out the rows that are not ``usable`` for what ``column`` holds in them."""
        bad = self.good & ~usable
        if bad.any():
            at = int(np.argmax(bad))
            value = column[at].as_py()
            found = value if isinstance(value, bytes) else readable(str(value))
            lost = Loss(
                int(bad.sum()), int(self.batch.lines[at]), self.batch.place(at), expected, found, cure
            )
            self.losses.append(lost)
            self.good &= usable

    def drop(self, wanted: NDArray[np.bool_]) -> None:
        """Take out the rows that are not ``wanted``, which is no loss."""
        self.dropped += int((self.good & ~wanted).sum())
        self.good &= wanted


def decoded(data: bytes) -> str:
    """Return the text in ``data``; each byte that is no UTF-8 becomes a private character of its own."""
    return data.decode("utf-8", "mlless.bytes")


def readable(text: str) -> str:
    """Return text that was ``decoded`` with each byte that is no UTF-8 written in hexadecimal."""
    return re.sub("[\uf780-\uf7ff]", lambda found: f"\\x{ord(found[0]) - 0xF700:02x}", text)


def _private(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(0xF700 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("mlless.bytes", _private)
