"""The compiled kernels; each does what its namesake in ``twin`` documents."""

from mlless.kernels.arrays import (
    Bytes,
    ClicksArrays,
    Floats,
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
def pack_update(parts: list[TableUpdate], half: int, planes: int, out: Bytes, /) -> int: ...
def merge_updates(
    tables: list[tuple[Rows, int]],
    updates: list[Bytes | bytes | memoryview],
    coefficients: Floats,
    by_count: int,
    /,
) -> None: ...
