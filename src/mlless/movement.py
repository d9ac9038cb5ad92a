"""PURE: by which pattern updates move, and after how many mini-batches: by what is declared, never by time.

What a step moves through its store follows from the shapes of the model, the mini-batches and the workers.
Rows of one mini-batch are taken to be touched by chance. How many more several workers touch together was
measured: ratings and clicks alike have popular rows, which are in the updates of all.
"""

from __future__ import annotations

import math

from mlless.job import Adagrad, Factorization, JobSpec, PatternName
from mlless.membership import parts_of

# Measured shares of the entries of touched rows that are sent: by a worker, and by who merges for all.
_PUBLISHED = {"mf": 0.5, "lr": 0.65}
_MERGED = {"mf": 0.5, "lr": 0.8}
_WHOLE = 0.8  # of the entries of a union of updates that are filtered
_GROWTH = (
    0.55  # rows that P workers touch together are about one's times P to this power: popular ones are in all
)
_ROUNDS = 3  # trips to the store that a step with mergers has more
_WORTH = 0.5  # of the time of broadcast: adding for all took up to 1.7 times the CPU time at 4 and 8 workers
# Mini-batches an exchange, the most of which is taken that is no more than this share of an epoch's.
_STEPS = {"mf": (8, 4, 2, 1), "lr": (4, 2, 1)}
_SHARE, _WORDED = {"mf": 3, "lr": 6}, {"mf": "a third", "lr": "a sixth"}


def pattern_of(spec: JobSpec) -> tuple[PatternName, str]:
    """Return by which pattern the updates of a job move, and why: scatter if that halves its store's time."""
    if spec.workers == 1:
        return "broadcast", "one worker moves nothing"
    if spec.slack:
        return "broadcast", "with slack each worker merges for itself"
    everyone, merged = moved(spec)
    times = [f"{1e3 * size / spec.network.rate:.3g} ms" for size in (merged, everyone)]
    store = f"a store of {spec.network.rate / 1e6:g} MB/s"
    told = f"{store} would be busy for {times[0]} a step with scatter, {times[1]} with broadcast"
    return ("scatter", told) if merged < _WORTH * everyone else ("broadcast", told)


def moved(spec: JobSpec) -> tuple[float, float]:
    """Return the bytes of shared rows that a step moves through its store: by broadcast, and by scatter.

    With mergers every worker stores its pieces, which are read once, and reads all sums. The trips to the
    store that this takes more count as the bytes that it could have moved meanwhile.
    """
    workers, network = spec.workers, spec.network
    update, union = _sizes(spec)
    waiting = _ROUNDS * network.latency * network.rate
    return workers**2 * update, 2 * (workers - 1) * update + workers * union + waiting


def _sizes(spec: JobSpec) -> tuple[float, float]:
    """Return the bytes of the shared rows of an update, and of the sums of all updates."""
    sync, kind = spec.sync, _kind(spec)
    width = 2 if sync.half else 4
    published = _PUBLISHED[kind] if sync.significance else 1.0
    merged = published if not sync.significance else _WHOLE
    if sync.merged_significance is not None:
        merged = _MERGED[kind] if sync.merged_significance else _WHOLE
    width_merged = 4 if sync.merged_significance is None else 2
    model = spec.model
    rows, columns = (
        (model.items, model.factors + 1) if isinstance(model, Factorization) else (model.features, 1)
    )
    head = 1 + (columns + 7) // 8  # the gap to the row before, and the mask

    def touched(workers: int) -> float:
        """Return how many rows so many workers touch in a step, about."""
        return -rows * math.expm1(-workers * spec.local_steps * spec.batch_size * spec.entries / rows)

    one = touched(1)
    together = min(touched(spec.workers), one * spec.workers**_GROWTH)
    update = one * (head + width * published * columns)
    return update, together * (head + width_merged * merged * columns)


def local_steps_of(spec: JobSpec) -> tuple[int, str]:
    """Return how many mini-batches an exchange has, and why.

    As many as were measured to cost no quality: a share of those that an epoch has, so that workers do not
    move apart.
    """
    for unlike, why in (
        (spec.workers == 1, "one worker publishes nothing"),
        (not spec.sync.significance, "with bsp every change is published"),
        (spec.slack > 0, "slack does without"),
        (spec.scaling.policy != "off", "the tuner compares steps, which are to be alike"),
        (not isinstance(spec.optimizer, Adagrad), "no more were tried with this optimizer"),
    ):
        if unlike:
            return 1, why
    kind = _kind(spec)
    parts = parts_of(spec.rows, spec.batch_size, spec.workers)
    steps = next(steps for steps in _STEPS[kind] if steps == 1 or steps * _SHARE[kind] <= parts)
    choices = ", ".join(map(str, reversed(_STEPS[kind])))
    return steps, f"the most of {choices} that is at most {_WORDED[kind]} of a worker's {parts} in an epoch"


def _kind(spec: JobSpec) -> str:
    return "mf" if isinstance(spec.model, Factorization) else "lr"
