"""Bytes that a worker reads in a step by each pattern of movement, measured beside predicted.

    python benchmarks/patterns.py [--ratings 4000000] [--clicks 300000] [--sync isp] [--workers 4 8 24 64]
        [--picture docs/pictures/patterns.svg]

Jobs of a few steps on generated data, by the real roles on the virtual clock: their updates are real. What is
predicted follows from the updates of the broadcast alone. These are a worker's bytes of rows that are trained
apart (a) and of shared rows (s), and those of the union of all shared entries in float32 (U). The mean worker
of P reads (P - 1) (a + s) in a broadcast, and (P - 1) (a + (s + U) / P) where one adds for all. Each shard is
read by its merger then, and its sum by all others. One of M mergers reads (P - 1) (a + s / M) + (M - 1) / M
U, and who is none (P - 1) a + U: the busiest is one or the other. All go through one store: P times the mean.
Sums that pass a filter at the merger, in float16, are measured alone.

The CPU time is that of the mean worker and step for encoding, merging for others, and merging.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from pictures import PALETTE, panels, save

import mlless
from mlless.data.dataset import Dataset, open_dataset
from mlless.data.synthetic import write_clicks, write_ratings
from mlless.exchange import codec
from mlless.exchange.broadcast import Broadcast
from mlless.exchange.reduction import Merger, Reduction
from mlless.job import JobSpec
from mlless.kernels import twin
from mlless.kernels.arrays import TableUpdate
from mlless.messages import Merged, Report
from mlless.models import model_of
from mlless.recipes import job_of
from mlless.replica import TableShape
from mlless.simulation.conditions import Durations
from mlless.simulation.jobs import simulate
from mlless.simulation.ports import Store
from mlless.simulation.trace import Heard, Trace
from mlless.wishes import Wishes

EXACT = {"merged_significance": "exact"}
WAYS: dict[str, dict[str, Any]] = {
    "broadcast": {"pattern": "broadcast"},
    "allreduce": {"pattern": "allreduce", **EXACT},
    "scatter": {"pattern": "scatter", **EXACT},
    "scatter, filtered": {"pattern": "scatter"},
}
STEPS = range(3, 9)  # that are measured: no evaluation, and every worker has a mini-batch
HEAD, PART = 9, 13  # bytes of an update's head, and of each table's


@dataclass(frozen=True)
class Means:
    """Bytes that a worker and step read, the busiest worker's, and the CPU seconds of the mean one."""

    mean: float
    busiest: float
    cpu: float = 0.0


Rows = dict[tuple[int, str], tuple[Means, Means | None]]


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Take the CPU seconds of what patterns do meanwhile in the steps that count."""

    def timing(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(self: object, first: Any, *rest: Any) -> Any:
            begin = time.thread_time()
            result = call(self, first, *rest)
            if getattr(first, "step", first) in STEPS:
                seconds.append(time.thread_time() - begin)
            return result

        return timed_call

    with ExitStack() as stack:
        for kind, names in (
            (Broadcast, ("encode", "merge")),
            (Reduction, ("encode", "merge")),
            (Merger, ("merge",)),
        ):
            for name in names:
                stack.enter_context(patch.object(kind, name, timing(getattr(kind, name))))
        yield


def measured(spec: JobSpec, dataset: Dataset, trace: Trace) -> Means:
    """Run some steps of a job; return what its workers read for them."""
    seconds: list[float] = []
    with timed(seconds):
        simulate(spec, dataset, Durations(), trace=trace, listen=lambda record: record.step == STEPS[-1])
    read: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for _, one in trace:
        match one:
            case Heard(Report() as report):  # of what was merged before the step
                read[report.step - 1][report.worker] += report.bytes_in
            case Heard(Merged() as merged):
                read[merged.step][merged.worker] += merged.bytes_in
    return Means(
        statistics.mean(value for step in STEPS for value in read[step].values()),
        statistics.mean(max(read[step].values()) for step in STEPS),
        sum(seconds) / len(STEPS) / spec.workers,
    )


def predicted(spec: JobSpec, pattern: str, updates: dict[int, list[list[TableUpdate]]]) -> Means:
    """Return what workers read by a pattern, by the updates of a broadcast in each step."""
    shapes = model_of(spec.model).shapes
    half, head = spec.sync.half, HEAD + PART * len(shapes)
    means = []
    for step in STEPS:
        parts = updates[step]
        count = len(parts)
        apart, shared = (
            statistics.mean(
                sum(
                    size(one[number], shape, 2 if half else 4)
                    for number, shape in enumerate(shapes)
                    if shape.apart == wanted
                )
                for one in parts
            )
            for wanted in (True, False)
        )
        union = sum(
            united([one[number] for one in parts], shape)
            for number, shape in enumerate(shapes)
            if not shape.apart
        )
        shards = 1 if pattern == "allreduce" else min(count, 8)
        if any(shape.apart for shape in shapes):
            apart += head
        if pattern == "broadcast":
            whole = (count - 1) * (apart + shared + (0 if apart else head))
            means.append((whole, whole))
            continue
        shared, union = shared + shards * head, union + shards * head
        merger = (count - 1) * (apart + shared / shards) + (shards - 1) / shards * union
        busiest = max(merger, (count - 1) * apart + union if shards < count else 0.0)
        means.append(((count - 1) * (apart + (shared + union) / count), busiest))
    return Means(*(statistics.mean(column) for column in zip(*means, strict=True)))


def size(part: TableUpdate, shape: TableShape, width: int) -> int:
    """Return about how many bytes a table's part of an update has, a gap between rows taking one."""
    return len(part.rows) * (1 + (shape.columns + 7) // 8) + width * len(part.values)


def united(parts: list[TableUpdate], shape: TableShape) -> int:
    """Return about how many bytes the union of entries has in float32."""
    masks = np.zeros((shape.rows, (shape.columns + 7) // 8), np.uint8)
    for part in parts:
        masks[part.rows] |= part.masks
    rows = int(masks.any(axis=1).sum())
    return rows * (1 + masks.shape[1]) + 4 * int(np.bitwise_count(masks).sum())


def updates_of(spec: JobSpec, dataset: Dataset) -> tuple[Means, dict[int, list[list[TableUpdate]]]]:
    """Run a broadcast; return what its workers read, and the updates of each step."""
    shapes = [(shape.rows, shape.columns) for shape in model_of(spec.model).shapes]
    updates: dict[int, list[list[TableUpdate]]] = defaultdict(list)
    put_all = Store.put_all

    def kept(self: Store, values: dict[str, memoryview]) -> None:
        put_all(self, values)
        for key, value in values.items():
            step = int(key.split("/")[1])
            if step in STEPS:
                packed = codec.opened(bytes(value), model_of(spec.model).shapes, key)
                updates[step].append(twin.unpack_update(packed, shapes))

    with patch.object(Store, "put_all", kept):
        return measured(spec, dataset, []), updates


def table(title: str, dataset: Dataset, batch_size: int, asked: argparse.Namespace) -> Rows:
    """Print what workers read on a data set, and return it: measured and predicted."""
    rows: Rows = {}
    print(
        f"\n{title}, mini-batches of {batch_size:,}, {asked.sync}; kB read a worker and step, (predicted)\n"
    )
    print("| P | pattern | mean | busiest | through the store | CPU |")
    print("|---|---|---|---|---|---|")
    for workers in asked.workers:
        updates: dict[int, list[list[TableUpdate]]] = {}
        for way, how in WAYS.items():
            wishes = Wishes(
                workers=workers, batch_size=batch_size, sync=asked.sync, epochs=4, local_steps=1, **how
            )
            spec = job_of(wishes, dataset.manifest, dataset.location)
            if way == "broadcast":
                found, updates = updates_of(spec, dataset)
            else:
                found = measured(spec, dataset, [])
            exact = spec.sync.merged_significance is None or not spec.shards
            guess = predicted(spec, way, updates) if exact else None
            rows[workers, way] = found, guess
            told = ((found.mean, guess and guess.mean), (found.busiest, guess and guess.busiest))
            mean, busiest = (
                f"{size / 1e3:,.0f}" + (f" ({like / 1e3:,.0f})" if like is not None else "")
                for size, like in told
            )
            print(
                f"| {workers} | {way} | {mean} | {busiest} "
                f"| {workers * found.mean / 1e6:.1f} MB | {1e3 * found.cpu:.1f} ms |",
                flush=True,
            )
    return rows


def draw(tables: dict[str, Rows], path: Path) -> None:
    """Draw what the mean worker reads, with what was predicted as marks."""
    figure, axes = panels([f"{name}: MB that a worker reads in a step" for name in tables])
    for axis, rows in zip(axes, tables.values(), strict=True):
        counts = sorted({workers for workers, _ in rows})
        for number, way in enumerate(WAYS):
            places = [place + 0.2 * (number - 1.5) for place in range(len(counts))]
            found, guess = zip(*(rows[workers, way] for workers in counts), strict=True)
            axis.bar(places, [one.mean / 1e6 for one in found], 0.18, label=way, color=PALETTE[number])
            if all(guess):
                label = "predicted" if number == 0 else None
                axis.plot(places, [one.mean / 1e6 for one in guess], "k_", markersize=9, label=label)
        axis.set_xticks(range(len(counts)), [f"{workers} workers" for workers in counts])
    axes[0].legend()
    save(figure, path)


def main() -> None:
    """Make the data sets and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ratings", type=int, default=4_000_000)
    parser.add_argument("--clicks", type=int, default=300_000)
    parser.add_argument("--sync", choices=("isp", "bsp"), default="isp")
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8, 24, 64])
    parser.add_argument("--picture", type=Path, help="an SVG to draw the tables into")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = (asked.ratings / 20_000_263) ** 0.5  # the share of pairs that is rated stays as it is
        write_ratings(
            folder / "ratings.csv", users=int(138_493 * root), items=int(26_744 * root), rows=asked.ratings
        )
        mlless.partition(folder / "ratings.csv", folder / "ratings")
        title = f"mf, {asked.ratings:,} ratings, k = 20"
        ratings = table(title, open_dataset(str(folder / "ratings")), 6_250, asked)
        write_clicks(folder / "clicks.svm", rows=asked.clicks, features=1 << 18, per_row=39)
        mlless.partition(folder / "clicks.svm", folder / "clicks")
        title = f"lr, {asked.clicks:,} clicks, 2^18 features"
        clicks = table(title, open_dataset(str(folder / "clicks")), 1_500, asked)
    if asked.picture:
        draw({"factorisation": ratings, "logistic regression": clicks}, asked.picture)


if __name__ == "__main__":
    main()
