"""JobSpec: what to train, on what, how, until when. A validated value that serialises to JSON.

It leaves nothing to be looked up later. Any machine that has the spec trains the same model. ``recipes``
fills it from a data set and a user's wishes.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from mlless.billing.tariff import Tariff
from mlless.errors import UsageError

MergeRule = Literal["sum", "mean", "sqrt-members", "sqrt-publishers"]
Compression = Literal["none", "zstd"]
OnLoss = Literal["replace", "shrink", "fail"]
PatternName = Literal["broadcast", "allreduce", "scatter"]
MOST_SLACK = 32  # steps; what is decided takes effect two steps later than that
_MOST_SHARDS = 8  # each costs whoever publishes a piece more, and everyone a sum more to read
MOST_ROWS = 2**32 - 1  # of a mini-batch: they are numbered in 32 bits


def _require(condition: bool, what: str, expected: str, found: object) -> None:
    if not condition:
        raise UsageError(what, expected=expected, found=str(found))


def _finite(value: float, *, above: float | None = None, least: float | None = None) -> bool:
    return math.isfinite(value) and (above is None or value > above) and (least is None or value >= least)


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Factorization(_Value, frozen=True, kw_only=True, tag="mf", tag_field="kind"):
    """Matrix factorisation with biases: ``(r - centre) / deviation = p . q + p_bias + q_bias``.

    ``l2`` pulls every parameter once for each rating it takes part in (the objective of Koren,
    Bell and Volinsky, 2009). Factors start from N(0, ``initial_deviation``), biases from 0.
    Predictions are clipped to ``low``..``high``.
    """

    users: int
    items: int
    factors: int
    l2: float
    centre: float
    deviation: float
    low: float
    high: float
    initial_deviation: float = 0.1

    def __post_init__(self) -> None:
        _require(1 <= self.factors <= 255, "number of factors", "1 to 255", self.factors)
        _require(_finite(self.l2, least=0), "L2 strength", "a number from 0", self.l2)
        _require(self.users >= 1 and self.items >= 1, "table", "rows", f"{self.users} x {self.items}")
        _require(_finite(self.deviation, above=0), "deviation", "a number above 0", self.deviation)
        _require(_finite(self.centre), "centre", "a finite number", self.centre)
        _require(self.low <= self.high, "rating scale", "low to high", f"{self.low} to {self.high}")
        _require(
            _finite(self.initial_deviation, least=0), "start", "a deviation from 0", self.initial_deviation
        )


class Logistic(_Value, frozen=True, kw_only=True, tag="lr", tag_field="kind"):
    """Sparse logistic regression: log-odds = w . x + intercept.

    The objective is the mean log loss plus ``l2`` / 2 times the squared norm of w; the intercept is
    free and starts at ``intercept``, the log-odds of the training part.
    """

    features: int
    l2: float
    intercept: float

    def __post_init__(self) -> None:
        _require(_finite(self.l2, least=0), "L2 strength", "a number from 0", self.l2)
        _require(self.features >= 1, "number of features", "at least 1", self.features)
        _require(_finite(self.intercept), "intercept", "a finite number", self.intercept)


class Adagrad(_Value, frozen=True, kw_only=True, tag="adagrad", tag_field="kind"):
    """Duchi, Hazan and Singer (2011), one accumulator an entry, local to each worker.

    A step is ``learning_rate * fading^epoch * g / (sqrt(sum of g^2) + damping * scale)``. ``damping`` is
    FTRL's beta (McMahan et al., 2013), its scale the model's. With ``warmup`` the rate of step t is
    multiplied by ``(t + 1) / sqrt(members)`` as long as that is below 1.
    """

    learning_rate: float
    damping: float = 0.0
    fading: float = 1.0
    warmup: bool = False

    def __post_init__(self) -> None:
        _require(
            _finite(self.learning_rate, above=0), "learning rate", "a number above 0", self.learning_rate
        )
        _require(_finite(self.damping, least=0), "damping", "a number from 0", self.damping)
        _require(0 < self.fading <= 1, "fading of the rate", "a number above 0, up to 1", self.fading)


class Nesterov(_Value, frozen=True, kw_only=True, tag="nesterov", tag_field="kind"):
    """Nesterov's momentum on batch-mean gradients; a row's velocity decays each time it is touched."""

    learning_rate: float
    momentum: float = 0.8

    def __post_init__(self) -> None:
        _require(
            _finite(self.learning_rate, above=0), "learning rate", "a number above 0", self.learning_rate
        )
        _require(0 <= self.momentum < 1, "momentum", "a number from 0 to below 1", self.momentum)


class Sync(_Value, frozen=True, kw_only=True):
    """How workers agree: significance threshold v (0 is BSP), precision on the wire, merge rule.

    Who merges for all sends sums in float16 that are significant by a threshold of its own,
    ``merged_significance``; if that is None, all of them as they are, in float32.
    """

    significance: float
    half: bool
    merge: MergeRule
    compression: Compression = "none"
    merged_significance: float | None = None

    def __post_init__(self) -> None:
        _require(
            _finite(self.significance, least=0),
            "significance threshold",
            "a number from 0",
            self.significance,
        )
        _require(not (self.half and self.significance == 0), "precision", "float32 with BSP", "float16")
        merged = self.merged_significance
        _require(
            merged is None or (self.half and _finite(merged, least=0)),
            "significance threshold of mergers",
            "a number from 0 where updates are in float16, else none",
            merged,
        )


class Network(_Value, frozen=True, kw_only=True):
    """What is declared of the way to the store: bytes a second of its network card, seconds of a request."""

    rate: float = 125e6
    latency: float = 1e-3

    def __post_init__(self) -> None:
        _require(_finite(self.rate, above=0), "rate of the store", "bytes a second above 0", self.rate)
        _require(_finite(self.latency, least=0), "latency of the store", "seconds from 0", self.latency)


class Target(_Value, frozen=True, kw_only=True):
    """Stop once ``metric`` has come to ``value``."""

    metric: Literal["train_loss", "rmse", "log_loss", "auc"]
    value: float

    def __post_init__(self) -> None:
        _require(math.isfinite(self.value), "target", "a finite number", self.value)


class Stop(_Value, frozen=True, kw_only=True):
    """When to stop; whichever comes first. ``max_time`` is in seconds from the start of the job.

    ``patience`` is how many evaluations in a row may pass without a new best, one that is better by
    ``least_gain`` at least. ``max_cost`` is in dollars; a job ends before it costs more, the ending included.
    """

    epochs: int
    target: Target | None = None
    patience: int | None = None
    least_gain: float = 0.0
    max_time: float | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(self.patience is None or self.patience >= 1, "patience", "at least 1", self.patience)
        _require(_finite(self.least_gain, least=0), "least gain", "a number from 0", self.least_gain)
        _require(
            self.max_time is None or _finite(self.max_time, above=0),
            "maximum time",
            "seconds above 0",
            self.max_time,
        )
        _require(
            self.max_cost is None or _finite(self.max_cost, above=0),
            "budget",
            "dollars above 0",
            self.max_cost,
        )


class Scaling(_Value, frozen=True, kw_only=True):
    """Whether workers are let go by an auto-tuner's ``policy``, and how many stay at least.

    The published one looks at the job every ``tuner_interval`` seconds, and lets a worker go while the loss
    is less than ``tuner_tolerance`` percent above its former course.
    """

    policy: Literal["off", "published", "economy"] = "off"
    min_workers: int = 1
    tuner_interval: float | None = None
    tuner_tolerance: float | None = None

    def __post_init__(self) -> None:
        for what, value in (("interval", self.tuner_interval), ("tolerance", self.tuner_tolerance)):
            _require(value is None or _finite(value, above=0), f"tuner's {what}", "a number above 0", value)
            if value is not None and self.policy != "published":
                raise UsageError(
                    f"only the published tuner knows its {what}",
                    expected="--tuner published",
                    found=f"--tuner {self.policy}",
                )


class Deadlines(_Value, frozen=True, kw_only=True):
    """Longest waits in seconds: for all workers to start, for the reports of a step, for a commit.

    A wait for a commit includes the reports of others, some of which may have to be launched again. A worker
    counts as lost after ``silence`` seconds without a report. By default that follows from the usual step.
    """

    start: float = 120.0
    step: float = 300.0
    commit: float = 1500.0
    silence: float | None = None

    def __post_init__(self) -> None:
        shortest = min(self.start, self.step, self.commit, self.silence or self.step)
        _require(_finite(shortest, above=0), "deadline", "seconds above 0", shortest)
        least = self.start + self.step
        _require(self.commit > least, "deadline of a commit", f"more than {least:g} s", self.commit)

    @property
    def expiry(self) -> float:
        """Seconds after which what a job has left on a server may be forgotten: no one waits any more."""
        return 2 * max(self.start, self.step, self.commit)


class JobSpec(_Value, frozen=True, kw_only=True):
    """One job, whole.

    Attributes
    ----------
    dataset, fingerprint : str
        The address of the data set, and what identifies its content.
    groups, rows, held_out : int
        The groups of the data set, its rows to train on, and its rows that are not trained on.
    batch_size : int
        About how many rows a worker trains on in a step.
    model, optimizer, sync, stop
        What is trained, how it steps, what workers exchange, and when the job stops.
    workers, seed : int
        How many workers there are, and what decides the first model and the order of rows.
    deadlines : Deadlines
        The longest waits.
    on_loss : {"replace", "shrink", "fail"}
        A lost worker is launched again, or the others go on without it, or the job fails.
    tariff : Tariff or None
        The prices by which the job is metered, wherever it runs.
    scaling : Scaling
        Whether and how an auto-tuner dismisses workers.
    pattern : {"broadcast", "allreduce", "scatter"}
        How updates move.
    checkpoint_every : float or None
        Seconds after which a checkpoint is made at the latest, whatever that takes.
    local_steps, local_since : int
        From an epoch on, a worker takes up to so many mini-batches in a step before it publishes.
    slack : int
        How many steps late updates are merged.
    share_users : bool
        Workers publish what they change of users, too.
    network : Network
        What is declared of the way to the store.
    entries : float
        In how many entries of what all share a row to train on takes part, about.
    movement : tuple of str
        Why updates move as they do, a line for each thing that was left to be decided.
    """

    dataset: str
    fingerprint: str
    groups: int
    rows: int
    held_out: int
    batch_size: int
    model: Factorization | Logistic
    optimizer: Adagrad | Nesterov
    sync: Sync
    stop: Stop
    workers: int
    seed: int
    deadlines: Deadlines = Deadlines()
    on_loss: OnLoss = "replace"
    tariff: Tariff | None = None
    scaling: Scaling = Scaling()
    pattern: PatternName = "broadcast"
    checkpoint_every: float | None = None
    local_steps: int = 1
    local_since: int = 0
    slack: int = 0
    share_users: bool = False
    network: Network = Network()
    entries: float = 1.0
    movement: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(self.local_steps >= 1, "local steps", "at least 1", self.local_steps)
        _require(self.local_since >= 0, "epoch of the first local steps", "a number from 0", self.local_since)
        _require(self.local_steps == 1 or not self.slack, "slack with local steps", "0", self.slack)
        _require(0 <= self.slack <= MOST_SLACK, "slack", f"0 to {MOST_SLACK} steps", self.slack)
        if self.slack and self.pattern != "broadcast":
            raise UsageError(
                "--slack works with --pattern broadcast only, where each worker merges for itself",
                expected="--slack 0, or --pattern broadcast",
                found=f"--slack {self.slack} --pattern {self.pattern}",
                cure="leave one of the two out",
            )
        every = self.checkpoint_every
        _require(
            every is None or _finite(every, least=0), "time between checkpoints", "seconds from 0", every
        )
        _require(self.workers >= 1, "number of workers", "at least 1", self.workers)
        least = self.scaling.min_workers
        _require(1 <= least <= self.workers, "least number of workers", f"1 to {self.workers}", least)
        for what, needs in (
            ("a budget", self.stop.max_cost is not None),
            ("the tuner economy", self.scaling.policy == "economy"),
        ):
            if needs and self.tariff is None:
                raise UsageError(f"{what} needs a tariff to count by", cure="name one with --tariff")
        _require(self.seed >= 0, "seed", "a whole number from 0", self.seed)
        _require(self.batch_size >= 1, "batch size", "at least 1", self.batch_size)
        if self.workers > self.groups:
            raise UsageError(
                "more workers than groups of rows",
                expected=f"--workers up to {self.groups} for this data set",
                found=f"--workers {self.workers}",
                cure="use fewer workers",
            )
        target = self.stop.target
        if target is not None:
            metrics = {"train_loss", *self.metrics} if self.held_out else {"train_loss"}
            _require(
                target.metric in metrics, "target", f"one of {', '.join(sorted(metrics))}", target.metric
            )

    @property
    def owns_users(self) -> bool:
        """Whether a user is trained, kept and scored by one worker alone."""
        return isinstance(self.model, Factorization) and self.workers > 1 and not self.share_users

    @property
    def shards(self) -> int:
        """The shards of rows each of which one worker merges for all; 0 where everyone does so for itself."""
        if self.pattern == "broadcast" or self.workers == 1:
            return 0
        return 1 if self.pattern == "allreduce" else min(self.workers, _MOST_SHARDS)

    @property
    def ahead(self) -> int:
        """How many steps a worker may be ahead of the slowest one; 0 for one that is alone."""
        return self.slack if self.workers > 1 else 0

    @property
    def batches(self) -> int:
        """How many mini-batches an epoch of one worker has."""
        return max(1, round(self.rows / self.batch_size))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The held-out metrics of the model, the one that picks the best model first."""
        return ("rmse",) if isinstance(self.model, Factorization) else ("log_loss", "auc")

    def on_scale(self, loss: float) -> float:
        """Return a training loss on the scale of the first metric: the root, where it is of squares."""
        return math.sqrt(loss) if isinstance(self.model, Factorization) else loss
