"""Made-up data of the published sizes and shapes: which kinds there are, and how many rows each has."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from mlless.data.staging import writing
from mlless.data.synthetic import Progress, write_ratings
from mlless.data.synthetic_columns import write_columns
from mlless.errors import UsageError

Kind = Literal["ml-1m", "ml-10m", "ml-20m", "criteo"]
CRITEO_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Shape:
    """Users and items that occur, ratings, and the step of their scale."""

    users: int
    items: int
    rows: int
    step: float


_SHAPES: dict[str, _Shape] = {
    "ml-1m": _Shape(6_040, 3_706, 1_000_209, 1.0),
    "ml-10m": _Shape(69_878, 10_677, 10_000_054, 0.5),
    "ml-20m": _Shape(138_493, 26_744, 20_000_263, 0.5),
}


@dataclass(frozen=True, slots=True)
class Synthesis:
    """A file that was made up: ``floor`` is the ``metric`` of the model behind it."""

    path: Path
    kind: Kind
    rows: int
    metric: Literal["rmse", "log_loss"]
    floor: float


def synthesize(
    kind: Kind,
    dest: str | Path,
    *,
    rows: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Synthesis:
    """Write made-up raw data to the file ``dest``, packed if it is named ``.gz``; the seed decides the bytes.

    ``ml-1m``, ``ml-10m`` and ``ml-20m`` have the users, items and ratings of those MovieLens sets, as
    CSV. With other ``rows`` users and items change with the square root, so that the share of pairs
    that are rated stays. ``criteo`` is a million rows of Criteo's layout unless told otherwise.
    """
    path = Path(dest)
    if kind not in get_args(Kind):
        raise UsageError("unknown kind", expected=" or ".join(get_args(Kind)), found=repr(kind))
    if rows is not None and rows < 1:
        raise UsageError("no such number of rows", expected="1 or more", found=str(rows))
    if seed < 0:
        raise UsageError("no such seed", expected="0 or more", found=str(seed))
    if path.is_dir() or (path.exists() and not overwrite):
        cure = "choose another name" + ("" if path.is_dir() else ", or --overwrite")
        raise UsageError("there is already such a file", where=str(path), cure=cure)
    part = path.with_name(f".part-{secrets.token_hex(4)}-{path.name}")  # the ending decides on packing
    try:
        made = _write(kind, part, rows, seed, progress)
        with writing(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return replace(made, path=path)


def _write(kind: Kind, path: Path, rows: int | None, seed: int, progress: Progress | None) -> Synthesis:
    if kind == "criteo":
        wanted = rows or CRITEO_ROWS
        return Synthesis(
            path, kind, wanted, "log_loss", write_columns(path, rows=wanted, seed=seed, progress=progress)
        )
    shape = _SHAPES[kind]
    wanted = rows or shape.rows
    factor = math.sqrt(wanted / shape.rows)
    floor = write_ratings(
        path,
        users=max(math.ceil(shape.users * factor), 1),
        items=max(math.ceil(shape.items * factor), 1),
        rows=wanted,
        step=shape.step,
        seed=seed,
        progress=progress,
    )
    return Synthesis(path, kind, wanted, "rmse", floor)
