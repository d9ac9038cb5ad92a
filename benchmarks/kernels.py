"""The compiled kernels against their NumPy twin, the memory's bandwidth and scikit-learn.

    python benchmarks/kernels.py [--rounds 30]

Printed, each as the median over rounds in which the contestants take turns on one core:

- the bandwidth of memory, as a plain copy or addition reaches it;
- matrix factorisation, at the shapes of ML-20M and ML-1M: a step with its filter (ISP: v = 0.7 at step 500,
  float16; BSP: float32), in milliseconds and ratings a second, and as a multiple of the twin. Told as well is
  the share of the bandwidth that it uses. Each touched row counts as read once and written once, and so do
  the mini-batch and the update;
- logistic regression, at the shape of Criteo with 1e5 and 1e6 features: the same, and as a multiple of
  scikit-learn's ``SGDClassifier(loss="log_loss").partial_fit`` on the same rows (left out where
  scikit-learn is missing);
- the merge of 4, 8 and 24 updates, compiled and twin;
- evaluation, compiled and twin;
- the assembly of a mini-batch from the rows of many groups, and its share of a step on the same
  mini-batch (BSP). A mini-batch is assembled once and then kept as long as the owners of the groups stay.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from types import ModuleType

import numpy as np
from measure import Seconds, bandwidth, ratio, take_turns
from shapes import (
    BSP,
    COLUMNS,
    ISP,
    ML_1M,
    ML_20M,
    RatingsShape,
    RatingsStream,
    clicks_batches,
    clicks_replica,
    clicks_rows,
    ratings_batches,
    ratings_replica,
)

from mlless.data.assembly import assemble
from mlless.data.groups import Group, RatingsGroup
from mlless.data.holding import Joined
from mlless.data.manifest import Clicks, Ratings
from mlless.exchange.codec import pack
from mlless.exchange.filter import SignificanceFilter
from mlless.exchange.update import Update, entries
from mlless.job import Adagrad, Sync
from mlless.kernels import native, twin
from mlless.kernels.arrays import ClicksArrays, RatingsArrays, Sent
from mlless.models.base import Moment
from mlless.models.optimizers import rule_of
from mlless.replica import Replica, coefficients

FIRST_STEP = 500
KERNELS = {"compiled": native, "twin": twin}


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    limit = bandwidth()
    print(f"memory bandwidth, one core: {limit / 1e9:.1f} GB/s\n")
    for shape in (ML_20M, ML_1M):
        for sync in (ISP, BSP):
            ratings_step(shape, sync, rounds, limit)
    print()
    for features in (100_000, 1_000_000):
        for sync in (Sync(significance=0.35, half=True, merge="sum"), BSP):
            clicks_step(features, sync, rounds)
    print()
    for shape in (ML_20M, ML_1M):
        for sync in (ISP, BSP):
            for workers in (4, 8, 24):
                merge(shape, sync, workers, max(3, rounds // 3))
    print()
    for shape in (ML_20M, ML_1M):
        evaluate_ratings(shape, rounds)
    evaluate_clicks(100_000, rounds)
    print()
    for count in (120, 480):
        for batch in (6_250, 25_000):
            assemble_ratings(ML_1M._replace(batch=batch), count, rounds)
    for features in (1 << 18, 1_000_000):
        for batch in (213, 1_500):
            assemble_clicks(features, batch, rounds)


class Trainer:
    """A replica, its filter, and the kernels that step it."""

    def __init__(self, kernels: ModuleType, replica: Replica, sync: Sync) -> None:
        self.kernels, self.replica = kernels, replica
        self.filter = SignificanceFilter(sync, replica)
        self.update: Update = ()

    def step(self, batch: RatingsArrays | ClicksArrays, step: int) -> None:
        """Step along the batch's gradient and publish."""
        publish = self.filter.prepare(step, batch.touched)
        optimizer = Adagrad(learning_rate=0.1, damping=0.0 if isinstance(batch, RatingsArrays) else 8.0)
        rule = rule_of(optimizer, Moment(step, 0, 4), damping=1.0 / batch.samples)
        tables = [table.rows for table in self.replica.tables]
        if isinstance(batch, RatingsArrays):
            _, *sent = self.kernels.factorization_step(
                *tables,
                COLUMNS,
                batch,
                0.0,
                1.0,
                0.06,
                1.0,
                rule,
                rule,
                publish.threshold,
                *publish.modes,
                *publish.outboxes,
            )
        else:
            _, *sent = self.kernels.logistic_step(
                *tables, batch, rule, publish.threshold, publish.modes[0], *publish.outboxes
            )
        self.update = self.filter.take(publish, [Sent(*part) for part in sent])


def ratings_step(shape: RatingsShape, sync: Sync, rounds: int, limit: float) -> None:
    """Print the step on ratings."""
    batches = ratings_batches(shape, 20)
    trainers = {name: Trainer(kernels, ratings_replica(shape), sync) for name, kernels in KERNELS.items()}
    # Some steps without a clock: memory is then touched, residuals and exponents are in their course.
    for number in range(5):
        for trainer in trainers.values():
            trainer.step(batches[number], FIRST_STEP - 5 + number)
    seconds = take_turns(
        {
            name: lambda n, trainer=trainer: trainer.step(batches[n % len(batches)], FIRST_STEP + n)
            for name, trainer in trainers.items()
        },
        rounds,
    )
    time = statistics.median(seconds["compiled"])
    batch, update = batches[0], trainers["compiled"].update
    row = 4 * trainers["compiled"].replica.tables[0].rows.stride
    moved = 2 * row * sum(batch.touched)
    moved += batch.nbytes
    moved += sum(t.rows.nbytes + t.masks.nbytes + t.values.nbytes for t in update)
    print(
        f"mf {shape.name:7}{_mode(sync):4} {len(batch.users):6,} users {len(batch.items):5,} items "
        f"{entries(update):7,} entries sent   {_against_twin(seconds)}   "
        f"{shape.batch / time / 1e6:5.2f} M ratings/s   "
        f"{moved / shape.batch:4.0f} B a rating, {moved / time / limit:4.0%} of the bandwidth"
    )


def clicks_step(features: int, sync: Sync, rounds: int) -> None:
    """Print the step on clicks."""
    batches = clicks_batches(features, 10)
    trainers = {name: Trainer(kernels, clicks_replica(features), sync) for name, kernels in KERNELS.items()}
    contestants = {
        name: lambda n, trainer=trainer: trainer.step(batches[n % len(batches)], FIRST_STEP + n)
        for name, trainer in trainers.items()
    }
    try:
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import SGDClassifier
    except ImportError:
        pass
    else:
        classifier = SGDClassifier(loss="log_loss")
        matrices = [
            csr_matrix((np.ones(len(b.local)), b.features[b.local], b.starts), (b.samples, features))
            for b in batches
        ]
        contestants["sklearn"] = lambda n: classifier.partial_fit(
            matrices[n % len(matrices)], batches[n % len(batches)].labels, classes=[0, 1]
        )
    for contestant in contestants.values():
        contestant(0)
    seconds = take_turns(contestants, rounds)
    rows = batches[0].samples
    line = (
        f"lr {features:9,} features {_mode(sync):4} {len(batches[0].features):6,} touched "
        f"{entries(trainers['compiled'].update):7,} sent   {_against_twin(seconds)}   "
        f"{rows / statistics.median(seconds['compiled']) / 1e6:5.2f} M rows/s"
    )
    if "sklearn" in seconds:
        theirs = rows / statistics.median(seconds["sklearn"]) / 1e6
        line += f"   {ratio(seconds, 'sklearn', 'compiled'):5.2f} x SGDClassifier ({theirs:.2f} M rows/s)"
    print(line)


def merge(shape: RatingsShape, sync: Sync, workers: int, rounds: int) -> None:
    """Print the merge of the updates of so many workers."""
    batches = ratings_batches(shape, workers)
    updates: list[memoryview] = []
    total = 0
    for batch in batches:
        trainer = Trainer(native, ratings_replica(shape), sync)
        trainer.step(batch, FIRST_STEP)
        updates.append(pack(trainer.update, "none"))
        total += entries(trainer.update)
    replica, (factors, by_count) = ratings_replica(shape), coefficients("sqrt-members", workers)

    def merge_with(kernels: ModuleType) -> None:
        tables = [(table.rows, COLUMNS, 0) for table in replica.tables]
        kernels.merge_updates(tables, updates, factors, int(by_count))

    seconds = take_turns(
        {name: lambda _, kernels=kernels: merge_with(kernels) for name, kernels in KERNELS.items()}, rounds
    )
    time = statistics.median(seconds["compiled"])
    print(
        f"merge {shape.name:7}{_mode(sync):4} {workers:3} updates {total:9,} entries   "
        f"{_against_twin(seconds)}   "
        f"{time / workers * 1e3:6.3f} ms an update   {total / time / 1e6:5.0f} M entries/s"
    )


def evaluate_ratings(shape: RatingsShape, rounds: int) -> None:
    """Print the held-out error of ratings."""
    batches, replica = ratings_batches(shape, 10), ratings_replica(shape)
    tables = [table.rows for table in replica.tables]
    seconds = take_turns(
        {
            name: lambda n, kernels=kernels: kernels.factorization_error(
                *tables, COLUMNS, batches[n % len(batches)], 0.0, 1.0, -math.inf, math.inf
            )
            for name, kernels in KERNELS.items()
        },
        rounds,
    )
    speed = shape.batch / statistics.median(seconds["compiled"]) / 1e6
    print(f"evaluate mf {shape.name:7} {_against_twin(seconds)}   {speed:5.2f} M ratings/s")


def evaluate_clicks(features: int, rounds: int) -> None:
    """Print the margins of clicks."""
    batches, replica = clicks_batches(features, 10), clicks_replica(features)
    tables = [table.rows for table in replica.tables]
    margins = np.empty(batches[0].samples, np.float32)
    seconds = take_turns(
        {
            name: lambda n, kernels=kernels: kernels.logistic_margins(
                *tables, batches[n % len(batches)], margins
            )
            for name, kernels in KERNELS.items()
        },
        rounds,
    )
    speed = len(margins) / statistics.median(seconds["compiled"]) / 1e6
    print(f"evaluate lr {features:,} features {_against_twin(seconds)}   {speed:5.2f} M rows/s")


def assemble_ratings(shape: RatingsShape, count: int, rounds: int) -> None:
    """Print the assembly of ratings dealt by user into so many groups."""
    rows = RatingsStream(shape).rows(1_000_000)
    order = np.argsort(rows.users % count, kind="stable")
    dealt = RatingsGroup(rows.users[order], rows.items[order], rows.ratings[order])
    edges = np.searchsorted(dealt.users % count, np.arange(count + 1))
    groups = [dealt.part(*edges[n : n + 2]) for n in range(count)]
    trainer = Trainer(native, ratings_replica(shape), BSP)
    _assembly(f"mf {shape.name} {count} groups", groups, shape.tables, shape.batch, trainer, rounds)


def assemble_clicks(features: int, batch: int, rounds: int) -> None:
    """Print the assembly of clicks, dealt by row."""
    size = 400
    rows = clicks_rows(features, 480 * size)
    groups = [rows.part(n * size, (n + 1) * size) for n in range(480)]
    trainer = Trainer(native, clicks_replica(features), BSP)
    shape = Clicks(features, index_base=0, positives=0.25)
    _assembly(f"lr {features:,} features 480 groups", groups, shape, batch, trainer, rounds)


def _assembly(
    name: str, groups: Sequence[Group], shape: Ratings | Clicks, batch: int, trainer: Trainer, rounds: int
) -> None:
    rows = Joined(dict(enumerate(groups)))
    assert rows.rows is not None
    group, parts = rows.rows, round(len(rows.rows) / batch)

    def put_together(number: int) -> RatingsArrays | ClicksArrays:
        part = number % parts
        return assemble(group, *rows.bounds(part, parts), shape)

    batches = [put_together(n) for n in range(min(rounds + 5, parts))]
    for number in range(5):
        trainer.step(batches[number % len(batches)], number)
    seconds = take_turns(
        {
            "assembly": put_together,
            "step": lambda n: trainer.step(batches[n % len(batches)], FIRST_STEP + n),
        },
        rounds,
    )
    time, step = (statistics.median(seconds[one]) for one in ("assembly", "step"))
    local = batches[0].local
    print(
        f"assembly {name} B {batch:6,} {time * 1e3:6.3f} ms, {time / len(local) * 1e9:4.1f} ns an entry, "
        f"step {step * 1e3:6.3f} ms: {1 / ratio(seconds, 'step', 'assembly'):4.0%} of it"
    )


def _mode(sync: Sync) -> str:
    return "ISP" if sync.half else "BSP"


def _against_twin(seconds: Seconds) -> str:
    compiled, numpy = (statistics.median(seconds[name]) * 1e3 for name in ("compiled", "twin"))
    return f"{compiled:7.3f} ms, twin {numpy:8.3f} ms: {ratio(seconds, 'twin', 'compiled'):5.1f} x"


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
