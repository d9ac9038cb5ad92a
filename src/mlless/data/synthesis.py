"""Made-up data of the published sizes and shapes: which kinds there are, and how many rows each has."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from mlless.data.progress import ShowProgress
from mlless.data.staging import writing
from mlless.data.synthetic import write_ratings
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
    """A file of made-up rows, as `mlless.synthesize` writes it.

    Attributes
    ----------
    path : Path
        The file.
    kind : str
        What its rows are shaped like.
    rows : int
        How many there are.
    metric : {"rmse", "log_loss"}
        The metric of ``floor``.
    floor : float
        How well the model itself does that the rows were made from. No training gets below it on new rows.
    """

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
    progress: ShowProgress | None = None,
) -> Synthesis:
    """Write made-up raw rows to the file ``dest``.

    Parameters
    ----------
    kind : {"ml-1m", "ml-10m", "ml-20m", "criteo"}
        What the rows are shaped like. The first three are CSV with the users, items and ratings of that
        MovieLens set. The last one is Criteo's layout of clicks.
    dest : str or path
        The file. It is packed if its name ends in ``.gz``.
    rows : int, optional
        How many. By default as many as the real set has, and a million for ``criteo``. Users and items change
        with the square root, so the share of pairs that are rated stays.
    seed : int, default 0
        The same kind, rows and seed give the same bytes.
    overwrite : bool, default False
        Whether to replace a file that is there.
    progress : callable, optional
        Is called with the share that is done and with what is done just now.
    """
    path = Path(dest)
    if kind not in get_args(Kind):
        raise UsageError("unknown kind", expected=" or ".join(get_args(Kind)), found=repr(kind))
    if rows is not None and rows < 1:
        raise UsageError("no such number of rows", expected="1 or more", found=str(rows))
    if seed < 0:
        raise UsageError("no such seed", expected="0 or more", found=str(seed))
    if path.is_dir() or (path.exists() and not overwrite):
        cure = "choose another name" + ("" if path.is_dir() else ", or add --overwrite")
        raise UsageError("there is already such a file", where=str(path), cure=cure)
    part = path.with_name(f".part-{secrets.token_hex(4)}-{path.name}")  # the ending decides on packing
    try:
        made = _write(kind, part, rows, seed, progress)
        with writing(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return replace(made, path=path)


def _write(kind: Kind, path: Path, rows: int | None, seed: int, progress: ShowProgress | None) -> Synthesis:
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
