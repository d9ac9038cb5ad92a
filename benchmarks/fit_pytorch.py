"""Measures what PyTorch takes for a step of each of its systems, and prints it as rates of a world.

    pip install torch
    python benchmarks/fit_pytorch.py > src/mlless/simulation/rates/pytorch.toml

Steps are those of ``mlless.baselines.pytorch.worker`` in one process, with nobody to exchange with, on one
thread: mini-batches of several sizes, and tables of several. All cores are at it meanwhile, as in a job.
"""

from __future__ import annotations

import datetime
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shapes import RatingsShape, RatingsStream, clicks_batches
from torch import distributed

from mlless.baselines.pytorch.exchange import AllGather, AllReduce
from mlless.baselines.pytorch.losses import Batch, batch_of
from mlless.baselines.pytorch.worker import _Averaging, _Matched
from mlless.clock import SystemClock
from mlless.job import Adagrad, Deadlines, Factorization, JobSpec, Logistic, Stop, Sync
from mlless.local import begin
from mlless.messages import Plan
from mlless.stepping import Laps

CORES = len(os.sched_getaffinity(0))
FACTORS, PER_ROW = 20, 39
STEPS, COUNT = 9, 3
ROWS, SCALES = (600, 3_000, 12_000), (1, 4, 16)
SYSTEMS = {"averaged": "dense", "matched": "added", "gathered": ""}  # and what each does with whole tables
Sample = tuple[float, float, float]  # rows, parameters, seconds


class Fixed:
    """Mini-batches that are made already, one after the other."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = itertools.cycle(batches)

    def of(self, plan: Plan) -> Batch:
        """Return the next one."""
        return next(self._batches)


def spec_of(model: Factorization | Logistic, rows: int, optimizer: Adagrad) -> JobSpec:
    """Return a job of one worker on such a model."""
    return JobSpec(
        dataset="", fingerprint="", groups=1, rows=rows, held_out=0, batch_size=rows, model=model,
        optimizer=optimizer, sync=Sync(significance=0.0, half=False, merge="sqrt-members"),
        stop=Stop(epochs=1), workers=1, seed=0, deadlines=Deadlines(),
    )  # fmt: skip


def ratings(rows: int, scale: int) -> tuple[JobSpec, list[Any]]:
    """Return a job on ratings with tables of so many times 4,000 users and 1,000 items, and mini-batches."""
    shape = RatingsShape("made up", 4_000 * scale, 1_000 * scale, rows)
    stream = RatingsStream(shape)
    model = Factorization(
        users=shape.users, items=shape.items, factors=FACTORS, l2=0.04, centre=0.0, deviation=1.0,
        low=-10.0, high=10.0,
    )  # fmt: skip
    return spec_of(model, rows, Adagrad(learning_rate=0.3)), [stream.next() for _ in range(COUNT)]


def clicks(rows: int, scale: int) -> tuple[JobSpec, list[Any]]:
    """Return a job on clicks with so many times 10,000 features, and mini-batches."""
    features = 10_000 * scale
    model = Logistic(features=features, l2=0.0, intercept=-1.0)
    batches = clicks_batches(features, COUNT, rows=rows, per_row=PER_ROW)
    return spec_of(model, rows, Adagrad(learning_rate=0.1)), list(batches)


def step_seconds(kind: str, rows: int, scale: int, how: str) -> Sample:
    """Return the usual CPU seconds of a step."""
    spec, batches = (ratings if kind == "mf" else clicks)(rows, scale)
    laps = Laps(SystemClock())
    tables = [torch.from_numpy(table.shared.copy()) for table in begin(spec.model, 0).replica.tables]
    made = [batch_of(spec.model, one, (1, n), whole=how == "averaged") for n, one in enumerate(batches)]
    fixed: Any = Fixed(made)
    trainer: Any
    if how == "averaged":
        trainer = _Averaging(spec, tables, fixed, laps)
    else:
        trainer = _Matched(spec, tables, fixed, laps, AllReduce if how == "matched" else AllGather)
    taken = []
    for number in range(STEPS):
        plan = Plan(number, (0,), 0, STEPS, number)
        begun = time.process_time()
        trainer.step(plan)
        taken.append(time.process_time() - begun)
    size = sum(table.numel() for table in tables)
    return rows, size, statistics.median(taken[2:])


def measured(folder: str, number: int) -> dict[tuple[str, str], list[Sample]]:
    """Measure all in this process."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/{number}", rank=0, world_size=1)
    found = {
        (kind, how): [step_seconds(kind, rows, scale, how) for rows, scale in itertools.product(ROWS, SCALES)]
        for kind, how in itertools.product(("mf", "lr"), SYSTEMS)
    }
    distributed.destroy_process_group()
    return found


def table(kind: str, parts: Sequence[dict[tuple[str, str], list[Sample]]]) -> Iterator[str]:
    """Yield the rates of a model in TOML."""
    size = FACTORS if kind == "mf" else 5 + 4 * PER_ROW  # bytes of a click: a label, an end, and indices
    yield f"[{kind}]\nsize = {size}"
    for how, whole in SYSTEMS.items():
        samples = np.array([one for part in parts for one in part[kind, how]])
        call, unit, each = fit(samples if whole else samples * [1, 0, 1])
        yield f"{how} = {{ call = {call:.3g}, unit = {unit:.3g} }}"
        if whole:
            yield f"{whole} = {{ unit = {each:.3g} }}"


def fit(samples: Any) -> list[float]:
    """Return seconds a call, a row and a parameter, none below zero, by relative least squares."""
    rows, parameters, seconds = samples.T
    design = np.stack([np.ones_like(rows), rows, parameters], axis=1) / seconds[:, None]
    found, least = [0.0] * 3, np.inf
    for chosen in itertools.product((False, True), repeat=3):
        columns = np.flatnonzero(chosen)
        rates, *_ = np.linalg.lstsq(design[:, columns], np.ones_like(seconds))
        missed = float(((design[:, columns] @ rates - 1) ** 2).sum())
        if (rates >= 0).all() and missed < least:
            least, found = missed, [0.0] * 3
            for column, rate in zip(columns, rates, strict=True):
                found[column] = float(rate)
    return found


def main() -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(CORES) as pool:
        parts = list(pool.map(measured, [str(Path(folder))] * CORES, range(CORES)))
    print(
        f'source = "benchmarks/fit_pytorch.py: PyTorch {torch.__version__}, {platform.machine()}, one thread"'
    )
    print(f'date = "{datetime.date.today()}"')
    for kind in ("mf", "lr"):
        print("\n" + "\n".join(table(kind, parts)))


if __name__ == "__main__":
    main()
