"""PURE: from a data set and a user's wishes to a JobSpec. The measured defaults live here.

Where they come from is told in docs/decisions/0003-defaults.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from mlless.billing.tariff import load_tariff
from mlless.data.manifest import Clicks, Manifest, Ratings
from mlless.errors import UsageError, warn
from mlless.job import (
    MOST_ROWS,
    Adagrad,
    Deadlines,
    Factorization,
    JobSpec,
    Logistic,
    MergeRule,
    Nesterov,
    Network,
    Scaling,
    Stop,
    Sync,
    Target,
)
from mlless.membership import parts_of
from mlless.movement import local_steps_of, pattern_of
from mlless.wishes import PatternWish, Wishes

EPOCHS, PATIENCE = {"mf": 20, "lr": 20}, 3  # at most, where held-out rows tell when to stop
MF_EPOCHS_BLIND = 12  # where none are
MF_RATE, MF_FADING, MF_DAMPING, MF_L2, MF_START = 0.3, 0.88, 2.0, 0.04, 0.01
ALONE = 25_000  # ratings that one worker alone takes at a time, about,
LEAST_BATCHES = 30  # in no fewer steps an epoch than these
WORKERS = 4  # unless there are fewer mini-batches; a fixed number, so that a seed means the same everywhere
SIGNIFICANCE = {"mf": 0.7, "lr": 0.35}
MERGED_SIGNIFICANCE = {"mf": 0.7, "lr": 0.0}  # of who merges for all
FACTORS = 20
LOCAL_SINCE = 2  # epochs after which workers on ratings take local steps: before, they would move apart

# Who brings arrays may bring few rows: an epoch then is a handful of steps, and no row can be spared. So
# there is a least number of steps, and a number of rows from which on some are held out.
LEAST_STEPS = {"mf": 300, "lr": 2000}
LEAST_HELD_OUT = {"mf": 200, "lr": 5000}
HELD_OUT = 0.1
# Epochs over each part of the data that is learnt from as it comes.
PARTIAL_EPOCHS = {"mf": 6, "lr": 1}


def held_out_share(model: Literal["mf", "lr"], rows: int) -> float:
    """Return the share of ``rows`` in memory that is held out to show when to stop."""
    return HELD_OUT if rows >= LEAST_HELD_OUT[model] else 0.0


def clicks_l2(rows: float) -> float:
    """Return the L2 strength for logistic regression on this number of rows."""
    return 8.0 / rows


def workers_of(wishes: Wishes, manifest: Manifest | None = None, *, here: bool = False) -> int:
    """Return how many workers are to train on a data set, or on any while none is named.

    ``here`` says that nothing asks for functions: one worker then can train in the process that asks,
    which is the quickest way.
    """
    if isinstance(wishes.workers, int):
        if wishes.workers < 1:
            raise UsageError("number of workers", expected="at least 1", found=str(wishes.workers))
        return wishes.workers
    if manifest is None:
        return WORKERS
    alone = here and wishes.tuner == "off" and wishes.tariff is None
    return 1 if alone else min(WORKERS, len(manifest.train))


def default_batch_size(rows: int) -> int:
    """Return how many of so many training rows a worker takes in a step, whatever their number."""
    return min(max(rows // 300, 64), 6250)


def job_of(
    wishes: Wishes, manifest: Manifest, location: str, *, least_steps: int = 0, here: bool = False
) -> JobSpec:
    """Return the whole job; UsageError if the wishes do not fit the data set or each other.

    ``least_steps`` above 0 is for data sets that may be tiny. It multiplies epochs and patience that were not
    asked for until they make that number of steps. Without held-out rows all of them are taken.
    """
    shape = manifest.shape
    fitting: Literal["mf", "lr"] = "mf" if isinstance(shape, Ratings) else "lr"
    if wishes.model not in (None, fitting):
        raise UsageError(
            f"this data set holds {manifest.kind}",
            expected=f"--model {fitting}",
            found=f"--model {wishes.model}",
        )
    if fitting == "lr" and wishes.factors is not None:
        raise UsageError("--factors is for ratings", found=manifest.kind)
    if fitting == "lr" and wishes.share_users:
        raise UsageError("--share-users is for ratings", found=manifest.kind)
    workers = workers_of(wishes, manifest, here=here)
    rows = sum(file.rows for file in manifest.train)
    size = _batch_size(wishes, fitting, rows, alone=workers == 1)
    longer = _times(wishes, fitting, parts_of(rows, size, workers=1), least_steps)
    # The training loss of few rows, or of a fading rate, tells nobody when to stop.
    blind = not manifest.validation and (fitting == "mf" or least_steps > 0)
    model: Factorization | Logistic
    if isinstance(shape, Ratings):
        model = _factorization(wishes, shape)
        optimizer, merge, stop = _ratings_recipe(wishes, blind, longer)
    else:
        model = _logistic(wishes, shape, rows)
        optimizer, merge, stop = _clicks_recipe(wishes, blind, longer)
    spec = JobSpec(
        dataset=location,
        fingerprint=manifest.fingerprint,
        groups=len(manifest.train),
        rows=rows,
        held_out=manifest.rows - rows,
        batch_size=size,
        model=model,
        optimizer=optimizer,
        sync=_sync(wishes, fitting, wishes.merge or merge, alone=workers == 1),
        stop=stop,
        workers=workers,
        seed=wishes.seed,
        deadlines=Deadlines(silence=wishes.worker_timeout),
        on_loss=wishes.on_loss,
        tariff=None if wishes.tariff is None else load_tariff(wishes.tariff),
        scaling=_scaling(wishes),
        checkpoint_every=wishes.checkpoint_every,
        slack=wishes.slack,
        share_users=fitting == "mf" and (wishes.share_users or wishes.optimizer == "nesterov"),
        network=_network(Network(), wishes.store_rate, wishes.store_latency),
        entries=1.0 if fitting == "mf" else _entries(manifest),
    )
    moving = _moving(spec, wishes.pattern, wishes.local_steps)
    if isinstance(wishes.merged_significance, float) and not moving.shards:
        warn("nobody merges for all: the threshold of mergers has no effect")
    if wishes.local_steps != "auto" and moving.local_since >= moving.stop.epochs:
        warn(f"local steps begin after {LOCAL_SINCE} epochs: in {moving.stop.epochs} they have no effect")
    return moving


def changed(spec: JobSpec, wishes: Mapping[str, Any]) -> JobSpec:
    """Return a job that goes on with what is given anew of ``Wishes``, by name; all else is as it was."""
    given = dict(wishes)
    if given.get("workers") == "auto":
        del given["workers"]
    for name, read in (("target", parse_target), ("tariff", load_tariff)):
        if name in given:
            given[name] = read(given[name])
    if "worker_timeout" in given:
        silence = given.pop("worker_timeout")
        given["deadlines"] = msgspec.structs.replace(spec.deadlines, silence=silence)
    if "tuner" in given:
        given["policy"] = given.pop("tuner")
    if not given.keys().isdisjoint(("workers", "pattern", "local_steps")):
        given["movement"] = ()  # its reasons are those of a decision that is no more
    given["network"] = _network(spec.network, given.pop("store_rate", None), given.pop("store_latency", None))
    tuned = given.get("policy", "off") != "off"  # by a tuner, which compares steps that are alike
    alone = given.get("workers") == 1  # where nothing moves, what moved before is nobody's wish
    steps = given.pop("local_steps", "auto" if tuned or alone else spec.local_steps)
    pattern = given.pop("pattern", "auto" if alone else spec.pattern)
    for part in ("stop", "scaling"):
        before = getattr(spec, part)
        changes = {name: given.pop(name) for name in before.__struct_fields__ if name in given}
        given[part] = msgspec.structs.replace(before, **changes)
    return _moving(msgspec.structs.replace(spec, **given), pattern, steps)


def _moving(spec: JobSpec, pattern: PatternWish, steps: int | Literal["auto"]) -> JobSpec:
    """Return a job with local steps and the pattern by which updates move; ``auto`` is decided here.

    Tells of what has no effect where nothing moves and nobody waits. UsageError for fewer steps than one.
    """
    if steps != "auto" and steps < 1:
        raise UsageError(
            "no such number of mini-batches an exchange",
            expected="--local-steps auto, or a number from 1",
            found=f"--local-steps {steps}",
        )
    if spec.workers == 1:
        if pattern not in ("auto", "broadcast"):
            warn("one worker publishes nothing: the pattern has no effect")
        if steps not in ("auto", 1):
            warn("one worker publishes nothing: local steps have no effect")
        if spec.slack:
            warn("one worker waits for nobody: slack has no effect")
        steps = 1
    why = list[str]()
    if steps == "auto":
        steps, reason = local_steps_of(spec)
        why.append(f"{steps} mini-batch{'es' if steps > 1 else ''} an exchange: {reason}")
    if steps != spec.local_steps:
        since = LOCAL_SINCE if isinstance(spec.model, Factorization) and steps > 1 else 0
        spec = msgspec.structs.replace(spec, local_steps=steps, local_since=since)
    if pattern == "auto":
        pattern, reason = pattern_of(spec)
        why.append(f"{pattern}: {reason}")
    return msgspec.structs.replace(spec, pattern=pattern, movement=tuple(why) or spec.movement)


def _network(network: Network, rate: float | None, latency: float | None) -> Network:
    """Return what is declared of the store, in megabytes a second and seconds; the rest is as it was."""
    return Network(
        rate=network.rate if rate is None else 1e6 * rate,
        latency=network.latency if latency is None else latency,
    )


def _entries(manifest: Manifest) -> float:
    """Return about how many features a row of clicks has: each takes four bytes, or eight with a value."""
    rows = sum(file.rows for file in manifest.train)
    return max(1.0, sum(file.bytes for file in manifest.train) / rows / 6)


def _scaling(wishes: Wishes) -> Scaling:
    how: dict[str, Any] = {
        "policy": wishes.tuner,
        "tuner_interval": wishes.tuner_interval,
        "tuner_tolerance": wishes.tuner_tolerance,
    }
    if wishes.min_workers is None:
        return Scaling(**how)
    if wishes.tuner == "off":
        raise UsageError(
            "without a tuner no worker leaves", expected="no --min-workers, or a --tuner", found="--tuner off"
        )
    return Scaling(min_workers=wishes.min_workers, **how)


def _factorization(wishes: Wishes, shape: Ratings) -> Factorization:
    # The published settings centre ratings and leave their scale; ours standardise, so that one set of
    # defaults serves every rating scale.
    adagrad = wishes.optimizer == "adagrad"
    l2 = wishes.l2 if wishes.l2 is not None else MF_L2 if adagrad else 0.0
    return Factorization(
        users=shape.users,
        items=shape.items,
        factors=FACTORS if wishes.factors is None else wishes.factors,
        l2=l2,
        centre=shape.mean,
        deviation=shape.deviation if adagrad else 1.0,
        low=shape.low,
        high=shape.high,
        initial_deviation=MF_START if adagrad else 0.1,
    )


def _logistic(wishes: Wishes, shape: Clicks, rows: int) -> Logistic:
    l2 = wishes.l2 if wishes.l2 is not None else clicks_l2(rows)
    share = min(max(shape.positives, 1.0 / (rows + 1)), 1.0 - 1.0 / (rows + 1))
    return Logistic(features=shape.table_rows, l2=l2, intercept=math.log(share / (1.0 - share)))


def _batch_size(wishes: Wishes, model: Literal["mf", "lr"], rows: int, *, alone: bool) -> int:
    """Return how many rows each worker takes in a step.

    One worker alone takes more ratings: large steps change each row less often, which is most of the work.
    """
    if wishes.batch_size is not None:
        if not 1 <= wishes.batch_size <= MOST_ROWS:
            raise UsageError("batch size", expected=f"1 to {MOST_ROWS}", found=str(wishes.batch_size))
        return wishes.batch_size
    size = default_batch_size(rows)
    if model == "lr" or not alone or wishes.optimizer != "adagrad":
        return size
    return size * max(1, min(ALONE // size, rows // size // LEAST_BATCHES))


def _times(wishes: Wishes, model: Literal["mf", "lr"], parts: int, least_steps: int) -> int:
    """Return by how much epochs are multiplied where one has so few parts."""
    return 1 if wishes.epochs is not None else max(1, math.ceil(least_steps / (EPOCHS[model] * parts)))


def _ratings_recipe(wishes: Wishes, blind: bool, longer: int) -> tuple[Adagrad | Nesterov, MergeRule, Stop]:
    if wishes.optimizer == "nesterov":
        stop = _stop(wishes, 30, blind, longer)
        return Nesterov(learning_rate=_or(wishes.learning_rate, 8.0)), "sum", stop
    rate, fading = _or(wishes.learning_rate, MF_RATE), MF_FADING ** (1 / longer)
    optimizer = Adagrad(learning_rate=rate, damping=MF_DAMPING, fading=fading, warmup=True)
    epochs = MF_EPOCHS_BLIND if blind else EPOCHS["mf"]
    return optimizer, "sqrt-members", _stop(wishes, epochs, blind, longer)


def _clicks_recipe(wishes: Wishes, blind: bool, longer: int) -> tuple[Adagrad | Nesterov, MergeRule, Stop]:
    stop = _stop(wishes, EPOCHS["lr"], blind, longer)
    if wishes.optimizer == "nesterov":
        return Nesterov(learning_rate=_or(wishes.learning_rate, 0.5)), "mean", stop
    return Adagrad(learning_rate=_or(wishes.learning_rate, 0.1), damping=8.0), "sqrt-publishers", stop


def _or(wish: float | None, default: float) -> float:
    return default if wish is None else wish


def _stop(wishes: Wishes, epochs: int, blind: bool, longer: int) -> Stop:
    tired: int | None = PATIENCE * longer
    if wishes.patience is not None:
        tired = wishes.patience
    elif wishes.epochs is not None or blind:  # who asks for a number of epochs gets them
        tired = None
    return Stop(
        epochs=epochs * longer if wishes.epochs is None else wishes.epochs,
        target=parse_target(wishes.target) if wishes.target else None,
        patience=tired,
        max_time=wishes.max_time,
        max_cost=wishes.max_cost,
    )


def _sync(wishes: Wishes, model: Literal["mf", "lr"], merge: MergeRule, *, alone: bool) -> Sync:
    """Return how workers agree; one alone, who has nobody to publish to, holds nothing back."""
    merged = wishes.merged_significance
    exact = wishes.sync == "bsp" or wishes.significance == 0 or alone
    if exact and isinstance(merged, float):
        raise UsageError(
            "who merges for all holds something back only where workers do",
            expected="--merged-significance exact, or --sync isp with a --significance and 2 workers or more",
            found=f"--merged-significance {merged:g}",
        )
    if wishes.sync == "bsp":
        if wishes.significance:
            raise UsageError(
                "BSP publishes every change",
                expected="no --significance with --sync bsp",
                found=str(wishes.significance),
            )
        return Sync(significance=0.0, half=False, merge=merge, compression=wishes.compression)
    if alone:
        if wishes.significance:
            warn("one worker publishes nothing: significance has no effect")
        return Sync(significance=0.0, half=False, merge=merge)
    return Sync(
        significance=_or(wishes.significance, SIGNIFICANCE[model]),
        half=not exact,
        merge=merge,
        compression=wishes.compression,
        merged_significance=(
            None if exact or merged == "exact" else MERGED_SIGNIFICANCE[model] if merged is None else merged
        ),
    )


def parse_target(text: str) -> Target:
    """Return the target in ``METRIC=VALUE``."""
    name, _, value = text.partition("=")
    try:
        return msgspec.convert({"metric": name.strip(), "value": float(value)}, Target)
    except (ValueError, msgspec.ValidationError) as error:
        raise UsageError(
            "not a target",
            expected="METRIC=VALUE with train_loss, rmse, log_loss or auc, as in rmse=0.85",
            found=text,
        ) from error
