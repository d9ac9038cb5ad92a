"""MLLess on one machine beside the tools that one would use there: quality, CPU seconds and memory.

    python -m venv .venv-bench && .venv-bench/bin/pip install '.[bench,sklearn]'
    .venv-bench/bin/python benchmarks/single_machine.py [--ratings ml-1m.parquet] [--clicks criteo.svm.gz]

Ratings: cornac's MF (biased SGD) and surprise's SVD. implicit does not apply: its models learn which
pairs occur, and predict no rating. Clicks: scikit-learn's LogisticRegression (L-BFGS) and SGDClassifier.
Without a file the data are generated, in the shape of ML-1M and of 80,000 hashed rows of Criteo's.

Each run is a process of its own, on one thread unless the row says two (cornac's default is all cores).
Seconds run from plain NumPy arrays, for clicks a CSR matrix, to the fitted model. CPU seconds are those of
all threads. ``data`` is their share until the contender's own data set stood. Starting Python, imports,
reading the file and scoring are left out. ``MB`` is the peak of resident memory until the model was fitted,
``before`` the peak of Python, the imports and the arrays.

Runs take turns. Repetition n is on split s = 1 + n % 3: the test part of ratings is
``default_rng(s).random(rows) < .1``; that of clicks is the last fifth of the rows, and s only the seed.
Predicted ratings are clipped to the scale of the training part. Printed are medians, ranges, the median
ratio of CPU seconds to those of MLLess, and the metrics of the repetitions. On a busy machine wall
seconds say little.

``tuned`` settings (`peers.py`) come from ``--choose``, which tries a grid on 5 % of split 1's *training*
part and never sees a test row. MLLess is not tuned: its rows are its defaults but for what they say.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import ratio, take_turns
from peers import CONTENDERS, Arrays, Predict, Settings


class Outcome(NamedTuple):
    """Seconds and MB of a run, and its metrics on the test rows."""

    cpu: float
    data: float
    wall: float
    peak: float
    before: float
    metrics: dict[str, float]


def main() -> None:
    """Compare, or choose settings."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ratings", type=Path, help="a file of ratings, as mlless partition takes it")
    parser.add_argument("--clicks", type=Path, help="a LIBSVM file of 2^20 features, from 0; may be packed")
    parser.add_argument("--only", choices=list(CONTENDERS), help="leave the other out")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--choose", action="store_true", help="try the grids of the tuned rows instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlless-benchmark-") as folder:
        for kind, write in (("ratings", _write_ratings), ("clicks", _write_clicks)):
            if options.only in (None, kind):
                arrays = Path(folder) / f"{kind}.npz"
                write(getattr(options, kind), arrays)
                if options.choose:
                    _choose(kind, arrays)
                else:
                    _compare(kind, arrays, options.repetitions)


def _compare(kind: str, arrays: Path, repetitions: int) -> None:
    outcomes: dict[str, list[Outcome]] = {name: [] for name in _installed(kind)}

    def turn(name: str, number: int) -> None:
        outcomes[name].append(_apart(kind, name, arrays, split=1 + number % 3))

    take_turns({name: lambda number, name=name: turn(name, number) for name in outcomes}, repetitions)
    seconds = {name: [outcome.cpu for outcome in of] for name, of in outcomes.items()}
    print(f"{kind:30}  CPU s          range  x MLLess  data s  wall s   MB  before  metrics")
    for name, of in outcomes.items():
        cpu, data, wall, peak, before = (
            statistics.median(field) for field in list(zip(*of, strict=True))[:5]
        )
        spread = f"{min(seconds[name]):.2f} to {max(seconds[name]):.2f}"
        found = (f"{m} " + " ".join(f"{o.metrics[m]:.4f}" for o in of) for m in of[0].metrics)
        print(
            f"{name:30}{cpu:7.2f}{spread:>15}{ratio(seconds, name, 'MLLess'):10.2f}{data:8.2f}{wall:8.2f}"
            f"{peak:5.0f}{before:8.0f}  {', '.join(found)}",
            flush=True,
        )


def _choose(kind: str, arrays: Path) -> None:
    """Print what each point of the grids gives, and each contender's best by the first metric."""
    for name in _installed(kind):
        grid, lines = CONTENDERS[kind][name].grid, []
        for values in itertools.product(*grid.values()) if grid else ():
            point = dict(zip(grid, values, strict=True))
            outcome = _apart(kind, name, arrays, choosing=True, changes=point)
            found = ", ".join(f"{metric} {value:.4f}" for metric, value in outcome.metrics.items())
            lines.append(
                (*outcome.metrics.values(), f"{name}: {found} in {outcome.cpu:.2f} CPU s with {point}")
            )
            print(lines[-1][-1], flush=True)
        if lines:
            print(f"best: {min(lines)[-1]}\n", flush=True)


def _installed(kind: str) -> list[str]:
    """Return the contenders that can be imported, and say which cannot."""
    names = []
    for name, contender in CONTENDERS[kind].items():
        try:
            importlib.import_module(contender.module)
            names.append(name)
        except ImportError as error:  # also of a wheel that was built for another NumPy
            print(f"{name}: not installed ({error})")
    return names


def _apart(kind: str, name: str, arrays: Path, **more: Any) -> Outcome:
    """Return the outcome of a run in a fresh process."""
    threads = str(CONTENDERS[kind][name].settings.get("threads", 1))
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads))
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_run, kind, name, arrays, **more).result()


# ---- in the process of a run ----


def _run(
    kind: str,
    name: str,
    arrays: Path,
    *,
    split: int = 1,
    choosing: bool = False,
    changes: Settings | None = None,
) -> Outcome:
    contender = CONTENDERS[kind][name]
    importlib.import_module(contender.module)
    train, test = _parts(kind, arrays, split, choosing)
    before, marks = _peak(), [_cpu_seconds()]
    began = time.perf_counter()
    settings = {**contender.settings, **(changes or {})}
    predict = contender.learn(train, split, lambda: marks.append(_cpu_seconds()), **settings)
    wall, (start, prepared, end) = time.perf_counter() - began, [*marks, _cpu_seconds()]
    return Outcome(end - start, prepared - start, wall, _peak(), before, _metrics(kind, train, test, predict))


def _parts(kind: str, path: Path, split: int, choosing: bool) -> tuple[Arrays, Arrays]:
    """Return training and test rows; to choose settings, both are of the training part."""
    arrays: dict[str, Any] = dict(np.load(path))
    if kind == "ratings":
        test = np.random.default_rng(split).random(len(arrays["ratings"])) < 0.1
    else:
        import scipy.sparse

        clicks = arrays["clicks"]
        parts = arrays["data"], arrays["indices"], arrays["indptr"]
        arrays = {"X": scipy.sparse.csr_matrix(parts, arrays["shape"]), "clicks": clicks}
        test = np.arange(len(clicks)) >= round(0.8 * len(clicks))
    train = ~test
    if choosing:
        held = np.random.default_rng(0).random(len(test)) < 0.05
        train, test = train & ~held, train & held
    return {n: rows[train] for n, rows in arrays.items()}, {n: rows[test] for n, rows in arrays.items()}


def _metrics(kind: str, train: Arrays, test: Arrays, predict: Predict) -> dict[str, float]:
    predicted = predict(test)
    if kind == "ratings":
        predicted = np.clip(predicted, train["ratings"].min(), train["ratings"].max())
        return {"RMSE": float(np.sqrt(np.mean((predicted - test["ratings"]) ** 2)))}
    from sklearn.metrics import log_loss, roc_auc_score

    return {"log loss": log_loss(test["clicks"], predicted), "AUC": roc_auc_score(test["clicks"], predicted)}


def _cpu_seconds() -> float:
    """Return the CPU seconds of all threads so far, and of processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(of.ru_utime + of.ru_stime for of in used)


def _peak() -> float:
    """Return the peak of resident memory in MB; on Linux that of getrusage may be the parent's."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6


# ---- data ----


def _write_ratings(path: Path | None, arrays: Path) -> None:
    """Write a file's ratings, or generated ones, as plain arrays."""
    import mlless
    from mlless.data.readers import open_source, read_ratings

    if path is None:
        path = mlless.synthesize("ml-1m", arrays.with_suffix(".csv")).path
        print("generated ratings, in the shape of ML-1M")
    chunks = [chunk.rows for chunk in read_ratings(open_source(path))]
    names = ("users", "items", "ratings")
    np.savez(arrays, **{name: np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names})


def _write_clicks(path: Path | None, arrays: Path) -> None:
    """Write a file's rows, or generated ones, as the arrays of a CSR matrix."""
    from sklearn.datasets import load_svmlight_file

    from mlless.data.synthetic import write_clicks

    if path is None:
        path = arrays.with_suffix(".svm")
        write_clicks(path, rows=80_000, features=2**20, per_row=39)
        print("generated clicks, in the shape of hashed rows of Criteo's")
    x, labels = load_svmlight_file(str(path), n_features=2**20, zero_based=True)
    np.savez(arrays, data=x.data, indices=x.indices, indptr=x.indptr, shape=x.shape, clicks=labels > 0)


if __name__ == "__main__":
    main()
