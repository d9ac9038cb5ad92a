"""A file of ids, one on each line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlless.data.ids import Ids, ids_of_text
from mlless.data.readers.parts import unreadable
from mlless.data.readers.text import shortened
from mlless.errors import InputError

_BLOCK = 1 << 12


def read_ids(path: Path) -> Iterator[tuple[Ids, float]]:
    """Yield ids in blocks, with the share of the file that is read; empty lines are passed over."""
    found: list[str] = []
    done = 0
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                done += len(line)
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                except UnicodeDecodeError as error:
                    where = f"{path}, line {number}"
                    raise InputError(
                        "not an id", where=where, expected="UTF-8", found=shortened(line)
                    ) from error
                if text:
                    found.append(text)
                if len(found) == _BLOCK:
                    yield ids_of_text(found), done / size
                    found = []
    except OSError as error:
        raise unreadable(path, error) from error
    if found:
        yield ids_of_text(found), 1.0
