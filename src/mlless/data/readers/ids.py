"""A file of ids, or standard input, one on each line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from mlless.data.ids import Ids, ids_of_text
from mlless.data.readers.parts import STANDARD_INPUT, unreadable
from mlless.data.readers.text import shortened
from mlless.errors import InputError

_BLOCK = 1 << 12


def read_ids(path: Path) -> Iterator[tuple[Ids, float | None]]:
    """Yield ids in blocks, with the share of the file that is read; empty lines are passed over.

    The path ``-`` is standard input, whose share is not known.
    """
    found: list[str] = []
    done, piped = 0, str(path) == STANDARD_INPUT
    name = "standard input" if piped else str(path)
    try:
        size = None if piped else path.stat().st_size
        with nullcontext(sys.stdin.buffer) if piped else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                done += len(line)
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    where = f"{name}, line {number}"
                    raise InputError(
                        "not an id", where=where, expected="UTF-8", found=shortened(line)
                    ) from error
                if text:
                    found.append(text)
                if len(found) == _BLOCK:
                    yield ids_of_text(found), done / size if size else None
                    found = []
    except OSError as error:
        raise unreadable(name, error) from error
    if found:
        yield ids_of_text(found), 1.0
