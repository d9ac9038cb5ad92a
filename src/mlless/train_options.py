"""The options of ``mlless.train`` and ``resume`` by type, for editors and type checkers.

None is "not given".

Made from their declarations by tools/write_options.py.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class TrainOptions(TypedDict, total=False):
    """What ``mlless.train`` takes by name: the fields of ``Wishes`` and of ``Deployment``."""

    model: Literal["mf", "lr"] | None
    factors: int | None
    optimizer: Literal["adagrad", "nesterov"] | None
    learning_rate: float | None
    l2: float | None
    batch_size: int | None
    seed: int | None
    workers: int | Literal["auto"] | None
    sync: Literal["bsp", "isp"] | None
    significance: float | None
    merged_significance: float | Literal["exact"] | None
    merge: Literal["sum", "mean", "sqrt-members", "sqrt-publishers"] | None
    compression: Literal["none", "zstd"] | None
    pattern: Literal["auto", "broadcast", "allreduce", "scatter"] | None
    local_steps: int | Literal["auto"] | None
    store_rate: float | None
    store_latency: float | None
    slack: int | None
    share_users: bool | None
    epochs: int | None
    patience: int | None
    target: str | None
    max_time: float | None
    max_cost: float | None
    worker_timeout: float | None
    checkpoint_every: float | None
    on_loss: Literal["replace", "shrink", "fail"] | None
    tariff: str | None
    tuner: Literal["off", "published", "economy"] | None
    min_workers: int | None
    tuner_interval: float | None
    tuner_tolerance: float | None
    store: str | None
    bus: str | None
    patience_channel: float | None
    runtime: Literal["processes", "lithops"] | None
    memory: int | None
    time_limit: int | None
    log_to: str | None


class ResumeOptions(TypedDict, total=False):
    """What ``mlless.resume`` takes by name: what it may be given anew of ``Wishes``, and ``Deployment``."""

    workers: int | Literal["auto"] | None
    pattern: Literal["auto", "broadcast", "allreduce", "scatter"] | None
    local_steps: int | Literal["auto"] | None
    store_rate: float | None
    store_latency: float | None
    epochs: int | None
    patience: int | None
    target: str | None
    max_time: float | None
    max_cost: float | None
    worker_timeout: float | None
    checkpoint_every: float | None
    on_loss: Literal["replace", "shrink", "fail"] | None
    tariff: str | None
    tuner: Literal["off", "published", "economy"] | None
    min_workers: int | None
    tuner_interval: float | None
    tuner_tolerance: float | None
    store: str | None
    bus: str | None
    patience_channel: float | None
    runtime: Literal["processes", "lithops"] | None
    memory: int | None
    time_limit: int | None
    log_to: str | None
