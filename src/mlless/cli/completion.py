"""What a shell may complete: runs and data sets of this machine, and names of what comes with the package."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

_DEPTH = 3  # folders below what is typed
_MOST = 2000  # folders that are looked into: a key is to have its effect at once
_RUN = ("summary.json", "history.jsonl", "job.json")
_DATASET = ("manifest.json",)


def runs(incomplete: str) -> list[str]:
    """Return the folders of runs whose path begins as it is typed."""
    return sorted(_holding(_RUN, incomplete))


def datasets(incomplete: str) -> list[str]:
    """Return the folders of data sets whose path begins as it is typed."""
    return sorted(_holding(_DATASET, incomplete))


def tariffs(incomplete: str) -> list[str]:
    """Return the tariffs of the package whose name begins as it is typed."""
    from mlless.billing.tariff import TARIFFS

    return [name for name in TARIFFS.names() if name.startswith(incomplete)]


def worlds(incomplete: str) -> list[str]:
    """Return the worlds of the package whose name begins as it is typed."""
    from mlless.simulation.world import WORLDS

    return [name for name in WORLDS.names() if name.startswith(incomplete)]


# By the name of a declared option; what has choices is completed in any case.
OPTIONS: dict[str, Callable[[str], list[str]]] = {"tariff": tariffs}


def _holding(names: tuple[str, ...], incomplete: str) -> Iterator[str]:
    """Yield the folders, below what is typed, that hold a file of one of these names."""
    for folder in islice(_folders(incomplete), _MOST):
        if any((Path(folder) / name).exists() for name in names):
            yield folder


def _folders(incomplete: str) -> Iterator[str]:
    """Yield the folders whose path begins as it is typed, and those below them, level by level."""
    base, start = os.path.split(incomplete)
    level = [path for path in _below(base) if os.path.basename(path).startswith(start)]
    if not start and base:
        yield base
    for _ in range(_DEPTH):
        yield from level
        level = [inner for path in level for inner in _below(path)]


def _below(folder: str) -> list[str]:
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            names = sorted(one.name for one in entries if one.is_dir() and not one.name.startswith("."))
    except OSError:  # there is no such folder, or it is none of ours
        return []
    return [os.path.join(folder, name) for name in names]
