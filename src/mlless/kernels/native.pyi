"""The compiled kernels; each does what its namesake in ``twin`` documents."""

import numpy as np
from numpy.typing import NDArray

from mlless.kernels.arrays import (
    Bytes,
    ClicksArrays,
    Decoded,
    Floats,
    Ids,
    Outbox,
    RatingsArrays,
    Rows,
    Rule,
    Sent,
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
    rule: Rule,
    threshold: float,
    half: int,
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
def merge_updates(
    table: Rows, columns: int, updates: list[Decoded], coefficients: Floats, by_count: int, /
) -> None: ...
def pack_rows(rows: Ids, out: Bytes, /) -> int: ...
def unpack_rows(packed: Bytes | bytes | memoryview, limit: int, out: Ids, /) -> None: ...
def widen_halves(halves: NDArray[np.uint16], exponent: int, floats: Floats, /) -> None: ...
def split_planes(values: Bytes, width: int, out: Bytes, /) -> None: ...
def join_planes(planes: Bytes, width: int, out: Bytes, /) -> None: ...
