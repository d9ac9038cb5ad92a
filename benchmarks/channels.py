"""The same job over every channel and runtime that is named: the same model, and at what cost.

    python benchmarks/channels.py DATASET [--redis URL] [--tls URL] [--rabbitmq URL] [--objects URL]
        [--lithops] [--workers 4] [--epochs 4] [--repeats 3]

DATASET is a partitioned folder; ``--objects`` names the same data set in an object store. The servers must
be running. Runs take turns; printed are the medians of each: seconds of start-up and of training, steps a
second, bytes, and where a worker's mean step goes. Last come the digests of the models, which must be one.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
from pathlib import Path

import mlless
from mlless.records import Summary

Setting = tuple[str, str, dict[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    for name in ("--redis", "--tls", "--rabbitmq", "--objects"):
        parser.add_argument(name)
    parser.add_argument("--lithops", action="store_true")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    results: dict[str, list[Summary]] = {}
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(asked.repeats):
            for label, dataset, places in settings(asked):
                out = Path(folder) / f"{label}-{turn}"
                run = mlless.train(
                    dataset, out=out, workers=asked.workers, epochs=asked.epochs, verbose=False, **places
                )
                results.setdefault(label, []).append(run.summary)
                digest = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()[:12]
                if digests.setdefault(label, digest) != digest:
                    print(f"{label}: another model in turn {turn}")
    show(results)
    print("models:", *(f"{label} {digest}" for label, digest in digests.items()), sep="\n  ")
    print("the same model everywhere" if len(set(digests.values())) == 1 else "THE MODELS DIFFER")


def settings(asked: argparse.Namespace) -> list[Setting]:
    """Return label, data set and deployment of every contestant."""
    found: list[Setting] = [("embedded", asked.dataset, {})]
    if asked.redis:
        found.append(("redis", asked.dataset, {"store": asked.redis}))
    if asked.tls:
        found.append(("redis, TLS and password", asked.dataset, {"store": asked.tls}))
    if asked.redis and asked.rabbitmq:
        found.append(("redis + rabbitmq", asked.dataset, {"store": asked.redis, "bus": asked.rabbitmq}))
    if asked.objects:
        found.append(("embedded, data in objects", asked.objects, {}))
    if asked.redis and asked.objects:
        found.append(("redis, data in objects", asked.objects, {"store": asked.redis}))
    if asked.redis and asked.lithops:
        found.append(("redis, lithops", asked.dataset, {"store": asked.redis, "runtime": "lithops"}))
    return found


def show(results: dict[str, list[Summary]]) -> None:
    """Print a table of medians."""
    parts = ("fetch", "compute", "filter", "publish", "wait", "merge", "evaluate")
    print(f"{'':28}{'start s':>8}{'train s':>8}{'steps/s':>8}{'MB out':>8}{'MB in':>8}", end="  ms a step: ")
    print(" ".join(f"{part:>8}" for part in parts))
    for label, runs in results.items():

        def median(of: list[float]) -> float:
            return statistics.median(of)

        start = median([run.startup_seconds for run in runs])
        train = median([run.wall_seconds - run.startup_seconds for run in runs])
        rate = median([run.steps / (run.wall_seconds - run.startup_seconds) for run in runs])
        out, read = runs[0].bytes_published / 1e6, runs[0].bytes_read / 1e6
        print(f"{label:28}{start:8.2f}{train:8.2f}{rate:8.1f}{out:8.1f}{read:8.1f}", end="             ")
        split = [median([1e3 * getattr(run.times, part) / run.steps for run in runs]) for part in parts]
        print(" ".join(f"{value:8.2f}" for value in split))


if __name__ == "__main__":
    main()
