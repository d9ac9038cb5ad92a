"""A file of ids, one on each line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlless.data.readers.parts import unreadable
from mlless.data.readers.text import shortened
from mlless.errors import InputError

_BLOCK = 1 << 12


def read_ids(path: Path) -> Iterator[tuple[NDArray[np.int64], float]]:
    """Yield ids in blocks, with the share of the file that is read; empty lines are passed over."""
    found: list[int] = []
    done = 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                done += len(line)
                if not line.strip():
                    continue
                found.append(_id(line, f"{path}, line {number}"))
                if len(found) == _BLOCK:
                    yield np.array(found, np.int64), done / size
                    found = []
    except OSError as error:
        raise unreadable(path, error) from error
    if found:
        yield np.array(found, np.int64), 1.0


def _id(line: bytes, where: str) -> int:
    text = line.strip()
    if not text.isdigit() or len(text) > 19 or int(text) >= 2**63:
        raise InputError(
            "not an id", where=where, expected="a whole number from 0 to 2^63 - 1", found=shortened(text)
        )
    return int(text)
