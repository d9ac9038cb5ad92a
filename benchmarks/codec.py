"""The update codec against pickle and zlib, on updates of a real training.

    python benchmarks/codec.py [--steps 500] [--workers 4] [--repeats 20]

Workers train for some hundred steps in this process, on a generated stream of ratings in the shape of ML-20M
(138,493 x 26,744, mini-batches of 12,000). The last steps' updates are then encoded in every way, taking
turns. Printed for the default optimizer (Adagrad) and the published one (Nesterov), at significance
thresholds 0.7 and 0.05 and for BSP:

- the entries of an update, and what the baseline takes for them: the bytes and CPU time of
  ``zlib.compress(pickle.dumps((rows, columns, values)))`` with int64 rows and columns and float32 values,
  one triple a table;
- for each form of ours, bytes and CPU time of encoding, also as a share of the baseline's, and the CPU
  time of decoding, which is done while it is merged: of both.

Float32 and float16 come from trainings of their own: what float16 publishes is rounded, and packs better.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import time
import zlib
from collections.abc import Callable

import numpy as np
from measure import take_turns
from shapes import COLUMNS, ML_20M, RatingsStream

from mlless.exchange import codec
from mlless.exchange.filter import SignificanceFilter
from mlless.exchange.update import Update, entries
from mlless.job import Adagrad, Compression, Factorization, Nesterov, Sync
from mlless.kernels.arrays import TableUpdate
from mlless.models.base import Moment
from mlless.models.factorization import FactorizationModel
from mlless.replica import Replica

KEPT = 5  # the updates of so many last steps are encoded


def main() -> None:
    """Print a table for each threshold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    for optimizer in (Nesterov(learning_rate=8.0), Adagrad(learning_rate=0.1)):
        for significance in (0.7, 0.05, 0.0):
            model, exact = train(optimizer, significance, False, options)
            rounded = train(optimizer, significance, True, options)[1] if significance else []
            count = statistics.mean(map(entries, exact))
            print(
                f"{type(optimizer).__name__}, v = {significance}, step {options.steps}: {count:,.0f} entries"
            )
            compare(model, exact, rounded, options.repeats)


def train(
    optimizer: Adagrad | Nesterov, significance: float, half: bool, options: argparse.Namespace
) -> tuple[FactorizationModel, list[Update]]:
    """Return the updates of the last steps of one of the workers."""
    adagrad, workers, steps = isinstance(optimizer, Adagrad), options.workers, options.steps
    spec = Factorization(
        users=ML_20M.users,
        items=ML_20M.items,
        factors=COLUMNS - 1,
        l2=0.06 if adagrad else 0.0,
        centre=0.0,
        deviation=1.0,
        low=-9.0,
        high=9.0,
    )
    model, stream = FactorizationModel(spec), RatingsStream(ML_20M)
    start = model.initial(np.random.default_rng(1))
    sync = Sync(significance=significance, half=half, merge="sqrt-members" if adagrad else "sum")
    replicas = [Replica(model.shapes) for _ in range(workers)]
    filters = [SignificanceFilter(sync, replica) for replica in replicas]
    for replica in replicas:
        replica.restore(start)
    kept = []
    for step in range(steps):
        updates = []
        for replica, significant in zip(replicas, filters, strict=True):
            batch = stream.next()
            publish = significant.prepare(step, batch.touched)
            _, sent = model.step(replica, batch, optimizer, Moment(step, 0, workers), publish)
            updates.append(significant.take(publish, sent))
        packed = {str(n): codec.pack(update, "none") for n, update in enumerate(updates)}
        for replica in replicas:
            replica.merge(packed, sync.merge, workers)
        if step >= steps - KEPT:
            kept.append(tuple(_copy(table) for table in updates[0]))
    return model, kept


def _encoded(update: Update, compression: Compression) -> bytes:
    return bytes(codec.seal(codec.pack(update, compression), compression))


def compare(model: FactorizationModel, exact: list[Update], rounded: list[Update], repeats: int) -> None:
    """Print the ways to encode the updates side by side."""
    triples = [[_triple(table) for table in update] for update in exact]
    ways: dict[str, Callable[[int], bytes]] = {
        "pickle + zlib": lambda n: zlib.compress(pickle.dumps(triples[n % KEPT])),
        "float32": lambda n: _encoded(exact[n % KEPT], "none"),
        "float32, zstd-1": lambda n: _encoded(exact[n % KEPT], "zstd"),
    }
    if rounded:
        ways["float16"] = lambda n: _encoded(rounded[n % KEPT], "none")
        ways["float16, zstd-1"] = lambda n: _encoded(rounded[n % KEPT], "zstd")
    encoding = take_turns(ways, repeats, time.process_time)
    encoded = {name: [way(n) for n in range(KEPT)] for name, way in ways.items()}
    replica = Replica(model.shapes)  # ours is decoded as it is merged; theirs is decoded alone
    undo: dict[str, Callable[[int], object]] = {
        name: lambda n, made=made: replica.merge(
            {"one": codec.opened(made[n % KEPT], model.shapes, "one")}, "sum", 1
        )
        for name, made in encoded.items()
    }
    undo["pickle + zlib"] = lambda n: pickle.loads(zlib.decompress(encoded["pickle + zlib"][n % KEPT]))
    decoding = take_turns(undo, repeats, time.process_time)
    base = statistics.mean(map(len, encoded["pickle + zlib"]))
    for name, made in encoded.items():
        size = statistics.mean(map(len, made))
        line = f"  {name:16} {size:9,.0f} B {size / base:5.0%}   encode {_ms(encoding[name])}"
        if name != "pickle + zlib":
            pairs = zip(encoding["pickle + zlib"], encoding[name], strict=True)
            line += f" 1/{statistics.median(theirs / ours for theirs, ours in pairs):3.0f}"
        else:
            line += " " * 6
        print(f"{line}   decode and merge {_ms(decoding[name])}")


def _copy(table: TableUpdate) -> TableUpdate:
    return table._replace(rows=table.rows.copy(), masks=table.masks.copy(), values=table.values.copy())


def _triple(table: TableUpdate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    marks = np.unpackbits(table.masks, axis=1, count=COLUMNS, bitorder="little")
    places, columns = np.nonzero(marks)
    return table.rows[places].astype(np.int64), columns.astype(np.int64), table.values


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:7.3f} ms"


if __name__ == "__main__":
    main()
