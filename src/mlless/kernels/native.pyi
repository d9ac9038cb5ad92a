"""The compiled kernels; each does what its namesake in ``twin`` documents."""

import numpy as np
from numpy.typing import NDArray

from mlless.kernels.arrays import (
    Bytes,
    ClicksArrays,
    Floats,
    Ids,
    Outbox,
    RatingsArrays,
    Rows,
    Rule,
    Sent,
    TableUpdate,
)

def factorization_step(
    users: Rows,
    items: Rows,
    columns: int,
    batch: RatingsArrays,
    centre: float,
    scale: float,
    l2: float,
    gradient_scale: float,
    user_rule: Rule,
    item_rule: Rule,
    threshold: float,
    user_mode: int,
    item_mode: int,
    user_out: Outbox,
    item_out: Outbox,
    /,
) -> tuple[float, Sent, Sent]: ...
def factorization_error(
    users: Rows,
    items: Rows,
    columns: int,
    batch: RatingsArrays,
    centre: float,
    deviation: float,
    low: float,
    high: float,
    /,
) -> float: ...
def logistic_step(
    features: Rows,
    intercept: Rows,
    batch: ClicksArrays,
    rule: Rule,
    threshold: float,
    half: int,
    out: Outbox,
    intercept_out: Outbox,
    /,
) -> tuple[float, Sent, Sent]: ...
def logistic_margins(features: Rows, intercept: Rows, batch: ClicksArrays, margins: Floats, /) -> None: ...
def pack_update(parts: list[TableUpdate], half: int, planes: int, out: Bytes, /) -> int: ...
def flush_table(
    table: Rows, columns: int, ids: Ids | None, threshold: float, mode: int, out: Outbox, /
) -> Sent: ...
def add_update(
    totals: list[tuple[Floats, NDArray[np.int32], Bytes, int]],
    update: Bytes | bytes | memoryview,
    /,
) -> None: ...
def merge_updates(
    tables: list[tuple[Rows, int, int]],
    updates: list[Bytes | bytes | memoryview],
    coefficients: Floats,
    by_count: int,
    /,
) -> None: ...
def sum_updates(
    kept: list[tuple[tuple[Floats, int], int, int]],
    updates: list[Bytes | bytes | memoryview],
    coefficients: Floats,
    by_count: int,
    rows: list[Ids],
    /,
) -> list[tuple[int, float]]: ...
def publish_sums(
    shared: Rows, kept: Floats, columns: int, ids: Ids, threshold: float, mode: int, out: Outbox, /
) -> Sent: ...
def cut_update(
    part: TableUpdate, half: int, shards: int, block: int, out: TableUpdate, /
) -> list[tuple[int, int]]: ...
def assemble_ratings(
    users: Ids,
    items: Ids,
    ratings: Floats,
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    user_rows: int,
    item_rows: int,
    out: RatingsArrays,
    /,
) -> tuple[int, int]: ...
def assemble_clicks(
    labels: Bytes,
    starts: Ids,
    indices: Ids,
    values: Floats | None,
    weights: Floats | None,
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    feature_rows: int,
    out: ClicksArrays,
    /,
) -> int: ...
