"""What a user may ask of a training. Whatever is left open, ``recipes`` decides."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from mlless.job import Compression, MergeRule, OnLoss
from mlless.options import Option

_MODEL = "What to train"
_SYNC = "Workers and what they exchange"
_STOP = "When to stop: whichever comes first"
_MONEY = "What it costs"
PatternWish = Literal["auto", "broadcast", "allreduce", "scatter"]


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may ask of a training; None and ``auto`` are for "what is known to work well"."""

    model: Annotated[
        Literal["mf", "lr"] | None,
        Option(
            _MODEL,
            "Matrix factorisation of ratings, or logistic regression on clicks.",
            "follows from the data set",
        ),
    ] = None
    factors: Annotated[int | None, Option(_MODEL, "Factors of mf.", "20")] = None
    optimizer: Annotated[
        Literal["adagrad", "nesterov"], Option(_MODEL, "Adagrad, or Nesterov's momentum as it was published.")
    ] = "adagrad"
    learning_rate: Annotated[
        float | None, Option(_MODEL, "Step size of the optimizer.", "with adagrad 0.3 for mf, 0.1 for lr")
    ] = None
    l2: Annotated[
        float | None, Option(_MODEL, "Strength of L2 regularisation.", "0.04 for mf, 8 / rows for lr")
    ] = None
    batch_size: Annotated[
        int | None,
        Option(
            _MODEL,
            "Rows that each worker trains on in a step.",
            "a 300th of the rows, 64 to 6250; more for one worker on ratings",
        ),
    ] = None
    seed: Annotated[int, Option(_MODEL, "Decides the first model and the order of mini-batches.")] = 0
    workers: Annotated[
        int | Literal["auto"] | None,
        Option(
            _SYNC,
            "Number of workers; auto: 1 on this machine, 4 where functions run.",
            metavar="N",
            anew=True,
        ),
    ] = "auto"
    sync: Annotated[
        Literal["bsp", "isp"], Option(_SYNC, "bsp: publish every change; isp: only the significant ones.")
    ] = "isp"
    significance: Annotated[
        float | None,
        Option(_SYNC, "ISP's threshold v: 0 publishes every change.", "0.7 for mf, 0.35 for lr; none alone"),
    ] = None
    merged_significance: Annotated[
        float | Literal["exact"] | None,
        Option(
            _SYNC,
            "Threshold of who merges for all and sends float16; exact: sums as they are, in float32.",
            "with isp 0.7 for mf, 0 for lr; else exact",
            metavar="V",
        ),
    ] = None
    merge: Annotated[
        MergeRule | None,
        Option(_SYNC, "How the updates of the workers are added up.", "follows from model and optimizer"),
    ] = None
    compression: Annotated[
        Compression,
        Option(_SYNC, "Compression of updates: zstd saves a tenth to a fifth of the bytes, and costs time."),
    ] = "none"
    pattern: Annotated[
        PatternWish,
        Option(
            _SYNC,
            "How updates move. broadcast: each reads all; allreduce: one adds; scatter: each adds a share.",
            "scatter if that halves the time for which the declared store is busy, else broadcast",
            anew=True,
        ),
    ] = "auto"
    local_steps: Annotated[
        int | Literal["auto"],
        Option(
            _SYNC,
            "Mini-batches that a worker takes before it publishes; auto: as many as cost no quality.",
            "auto: up to 8 for mf, from the third epoch on, and 4 for lr",
            metavar="N",
            anew=True,
        ),
    ] = "auto"
    store_rate: Annotated[
        float | None,
        Option(
            _SYNC,
            "What the store's network card moves in a second, for --pattern auto; it is not measured.",
            "125, which is 1 Gbit/s",
            metavar="MB",
            anew=True,
        ),
    ] = None
    store_latency: Annotated[
        float | None,
        Option(
            _SYNC,
            "What a request to the store takes, for --pattern auto; it is not measured.",
            "0.001",
            metavar="SECONDS",
            anew=True,
        ),
    ] = None
    slack: Annotated[
        int,
        Option(
            _SYNC,
            "How many steps a worker may be ahead of the slowest one. It sees updates that much later.",
            metavar="STEPS",
        ),
    ] = 0
    share_users: Annotated[
        bool,
        Option(
            _SYNC,
            "Workers publish changes of users, too, as with nesterov always. Else a user has one owner.",
        ),
    ] = False
    epochs: Annotated[
        int | None, Option(_STOP, "Stop after so many passes over the data.", "at most 20", anew=True)
    ] = None
    patience: Annotated[
        int | None,
        Option(
            _STOP,
            "Stop after so many evaluations in a row without a new best.",
            "3; none with --epochs",
            anew=True,
        ),
    ] = None
    target: Annotated[
        str | None,
        Option(
            _STOP,
            "Stop once a metric is that good: rmse, log_loss, auc, or train_loss (for mf the mean square).",
            metavar="METRIC=VALUE",
            anew=True,
        ),
    ] = None
    max_time: Annotated[
        float | None,
        Option(_STOP, "Stop before it takes longer, the ending included.", metavar="SECONDS", anew=True),
    ] = None
    max_cost: Annotated[
        float | None,
        Option(
            _STOP, "Stop before it costs more by --tariff, the ending included.", metavar="DOLLARS", anew=True
        ),
    ] = None
    worker_timeout: Annotated[
        float | None,
        Option(
            _SYNC,
            "A worker counts as lost after so many seconds without a report.",
            "ten times the usual step, at least 5",
            metavar="SECONDS",
            anew=True,
        ),
    ] = None
    checkpoint_every: Annotated[
        float | None,
        Option(
            _SYNC,
            "Make a checkpoint at least that often, whatever time it takes.",
            "as often as 2 percent of the time allow",
            metavar="SECONDS",
            anew=True,
        ),
    ] = None
    on_loss: Annotated[
        OnLoss,
        Option(
            _SYNC,
            "When a worker is lost: replace it, let the others take its rows (shrink), or fail the job.",
            anew=True,
        ),
    ] = "replace"
    tariff: Annotated[
        str | None,
        Option(
            _MONEY,
            "Prices to meter the job by, wherever it runs: a name of mlless tariff, or a TOML file.",
            metavar="NAME",
            anew=True,
        ),
    ] = None
    tuner: Annotated[
        Literal["off", "published", "economy"],
        Option(
            _MONEY,
            "Dismisses workers. published: once the loss no longer needs them; economy: if that saves money.",
            anew=True,
        ),
    ] = "off"
    min_workers: Annotated[
        int | None, Option(_MONEY, "The tuner keeps at least so many workers.", "1", anew=True)
    ] = None
    tuner_interval: Annotated[
        float | None,
        Option(_MONEY, "How often the published tuner looks at the job.", "20", metavar="SECONDS", anew=True),
    ] = None
    tuner_tolerance: Annotated[
        float | None,
        Option(
            _MONEY,
            "By how much the loss may be above its former course for the published tuner to let one go.",
            "1",
            metavar="PERCENT",
            anew=True,
        ),
    ] = None
