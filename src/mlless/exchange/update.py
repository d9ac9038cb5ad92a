"""An update: what one worker publishes in one step, table by table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlless.kernels.arrays import Bytes, Ids


@dataclass(frozen=True, slots=True)
class TableUpdate:
    """The published entries of one table.

    ``rows`` ascend; ``masks`` has ceil(columns / 8) bytes a row, bit ``c % 8`` of byte ``c // 8``
    standing for column c; ``values`` follow row by row: float32, or float16 bits (uint16) that
    count in units of 2 to the power of minus ``exponent``.
    """

    columns: int
    rows: Ids
    masks: Bytes
    values: NDArray[np.float32] | NDArray[np.uint16]
    exponent: int = 0

    @property
    def half(self) -> bool:
        """Whether the values are float16."""
        return self.values.dtype == np.uint16


Update = tuple[TableUpdate, ...]


def entries(update: Update) -> int:
    """Return how many parameters the update changes."""
    return sum(len(table.values) for table in update)
