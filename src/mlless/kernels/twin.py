"""The kernels in NumPy: what ``native.c`` computes, and the stand-in where there is no compiler.

Merge and codec give the same bits as the compiled kernels; a step, whose sums run in another
order, gives the same numbers to rounding.
"""

from __future__ import annotations

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

ADAGRAD, NESTEROV = 0, 1


@np.errstate(all="ignore")  # what is not finite is reported, not warned of
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
) -> tuple[float, Sent, Sent]:
    """Step users and items along a mini-batch's gradient and publish what is significant.

    The model is ``(rating - centre) * scale = p . q + p_bias + q_bias``, the bias being a row's
    last column; ``l2`` pulls each parameter once for each rating it takes part in. The gradient,
    a sum over ratings, is multiplied by ``gradient_scale``. Both sides' gradients are taken
    before either moves. Returns the sum of squared errors before the step and what was sent.
    """
    _check_ratings(users, items, batch)
    p_all, q_all = _parameters(users, batch.users, columns), _parameters(items, batch.items, columns)
    counts = _counts(batch.starts)
    group = np.repeat(np.arange(len(counts)), counts)
    p, q = p_all[group], q_all[batch.local]
    bias = columns - 1
    predicted = (p[:, :bias] * q[:, :bias]).sum(axis=1) + p[:, bias] + q[:, bias]
    error = (batch.ratings - np.float32(centre)) * np.float32(scale) - predicted
    p_direction, q_direction = error[:, None] * q, error[:, None] * p
    p_direction[:, bias] = q_direction[:, bias] = error
    item_counts = np.bincount(batch.local, minlength=len(batch.items))
    by_item = np.argsort(batch.local, kind="stable")
    p_sum = _group_sums(p_direction, counts) - np.float32(l2) * counts[:, None].astype(np.float32) * p_all
    q_sum = _group_sums(q_direction[by_item], item_counts)
    q_sum -= np.float32(l2) * item_counts[:, None].astype(np.float32) * q_all
    factor = np.float32(gradient_scale)
    return (
        float(np.square(error, dtype=np.float64).sum()),
        change_rows(users, columns, batch.users, p_sum * factor, rule, threshold, half, user_out),
        change_rows(items, columns, batch.items, q_sum * factor, rule, threshold, half, item_out),
    )


def factorization_error(
    users: Rows,
    items: Rows,
    columns: int,
    batch: RatingsArrays,
    centre: float,
    deviation: float,
    low: float,
    high: float,
) -> float:
    """Return the sum of squared errors of ``shared``, predictions clipped to ``low``..``high``."""
    _check_ratings(users, items, batch)
    group = np.repeat(np.arange(len(batch.users)), _counts(batch.starts))
    p, q = users.data[batch.users, :columns][group], items.data[batch.items, :columns][batch.local]
    bias = columns - 1
    predicted = (p[:, :bias] * q[:, :bias]).sum(axis=1) + p[:, bias] + q[:, bias]
    predicted = np.clip(
        np.float32(centre) + np.float32(deviation) * predicted, np.float32(low), np.float32(high)
    )
    return float(np.square(batch.ratings - predicted, dtype=np.float64).sum())


@np.errstate(all="ignore")
def logistic_step(
    features: Rows,
    intercept: Rows,
    batch: ClicksArrays,
    rule: Rule,
    threshold: float,
    half: int,
    out: Outbox,
    intercept_out: Outbox,
) -> tuple[float, Sent, Sent]:
    """Step the weights of a mini-batch's features and the intercept along the mean gradient.

    A row's loss and gradient are multiplied by its weight; the mean is over rows all the same. Returns
    the sum of log losses before the step and what was sent. The intercept is free of L2.
    """
    _check_clicks(features, batch)
    weights = _parameters(features, batch.features, 1)[:, 0]
    values = batch.values if batch.values is not None else np.ones(len(batch.local), np.float32)
    margin = _row_sums(weights[batch.local] * values, batch.starts)
    margin = (margin + (intercept.data[0, 0] + intercept.data[0, 1])).astype(np.float64)
    probability = np.exp(-np.logaddexp(0.0, -margin))
    losses = np.logaddexp(0.0, margin) - batch.labels * margin
    error = (batch.labels - probability).astype(np.float32)
    if batch.weights is not None:
        losses *= batch.weights
        error *= batch.weights
    n = len(batch.labels)
    by_entry = np.repeat(error, _counts(batch.starts)) * values
    gradient = np.bincount(batch.local, by_entry, minlength=len(batch.features)).astype(np.float32)
    gradient *= np.float32(1 / n)
    mean = np.array([[error.sum(dtype=np.float64) / n]], np.float32)
    free = rule._replace(decay=0.0)
    return (
        float(losses.sum()),
        change_rows(features, 1, batch.features, gradient[:, None], rule, threshold, half, out),
        change_rows(intercept, 1, np.zeros(1, np.uint32), mean, free, threshold, half, intercept_out),
    )


def logistic_margins(features: Rows, intercept: Rows, batch: ClicksArrays, margins: Floats) -> None:
    """Write the rows' margins (log-odds) under ``shared`` into ``margins``."""
    _check_clicks(features, batch)
    values = batch.values if batch.values is not None else np.float32(1)
    weights = features.data[batch.features, 0]
    margins[:] = intercept.data[0, 0] + _row_sums(weights[batch.local] * values, batch.starts)


def change_rows(
    table: Rows,
    columns: int,
    ids: Ids,
    direction: Floats,
    rule: Rule,
    threshold: float,
    half: int,
    out: Outbox,
) -> Sent:
    """Move the rows ``ids`` along ``direction`` (rows x columns), then publish what is significant."""
    if rule.kind not in (ADAGRAD, NESTEROV):
        raise ValueError("no such rule, or tables do not have this shape")
    sections = table.data[ids, : 3 * columns].reshape(len(ids), 3, columns)
    shared, residual, state = sections[:, 0], sections[:, 1], sections[:, 2]
    last = table.data.view(np.int32)[:, 3 * columns]
    steps = (rule.step - last[ids].astype(np.int64)).astype(np.float32)[:, None]
    last[ids] = rule.step
    rate = np.float32(rule.rate)
    with np.errstate(all="ignore"):  # what is not finite is reported, not warned of
        if rule.kind == ADAGRAD:
            state += direction * direction
            root = np.sqrt(state) + np.float32(rule.epsilon)
            eta = np.divide(rate, root, out=np.zeros_like(root), where=root > 0)
            change = eta * direction
        else:
            eta = np.full_like(state, rate)
            momentum = np.float32(rule.momentum)
            velocity = momentum * state + rate * direction
            change = (np.float32(1) + momentum) * velocity - momentum * state
            state[:] = velocity
        if rule.decay > 0:
            shrink = np.float32(1) + eta * np.float32(rule.decay) * steps
            residual[:] = (shared + residual + change) / shrink - shared
        else:
            residual += change
        sent = publish(ids, shared, residual, threshold, half, out)
    table.data[ids, : 3 * columns] = sections.reshape(len(ids), 3 * columns)
    return sent


def publish(ids: Ids, shared: Floats, residual: Floats, threshold: float, half: int, out: Outbox) -> Sent:
    """Fill the outbox with the entries where ``|residual| > threshold * |shared|``.

    Their residual becomes zero or, in half precision, what rounding left of it; an entry that
    rounds to zero is kept back. Halves saturate: the excess, too, stays in the residual.
    """
    chosen = np.abs(residual) > np.float32(threshold) * np.abs(shared)
    finite = bool(np.isfinite(residual).all())
    if half:
        scaled = residual * np.float32(2.0**out.exponent)
        halves = np.clip(scaled, np.float32(-65504), np.float32(65504)).astype(np.float16)
        chosen &= halves != 0
        kept = residual - halves.astype(np.float32) * np.float32(2.0**-out.exponent)
        values, room = halves[chosen].view(np.uint16), out.values.view(np.uint16)
    else:
        kept = np.zeros_like(residual)
        values, room = residual[chosen].view(np.uint32), out.values.view(np.uint32)
    largest = float(np.abs(residual[chosen]).max(initial=0))
    np.copyto(residual, kept, where=chosen)
    rows = chosen.any(axis=1)
    count = int(rows.sum())
    out.rows[:count] = ids[rows]
    out.masks[:count] = np.packbits(chosen[rows], axis=1, bitorder="little")
    room[: len(values)] = values
    return Sent(count, len(values), largest, int(finite))


@np.errstate(all="ignore")
def merge_updates(
    table: Rows, columns: int, updates: list[Decoded], coefficients: Floats, by_count: int
) -> None:
    """Add to ``shared`` the updates' sum, in their order, times a coefficient.

    That is ``coefficients[0]`` or, ``by_count``, the one at the number of publishers of the entry.
    """
    if len(coefficients) < (len(updates) + 1 if by_count else 1):
        raise ValueError("table, updates or coefficients do not have this shape")
    for update in updates:
        _check_update(table, columns, update)
    updates = [update for update in updates if len(update.values)]  # others touch nothing
    union = np.unique(np.concatenate([update.rows for update in updates] or [np.empty(0, np.uint32)]))
    sums = np.zeros((len(union), columns), np.float32)
    counts = np.zeros((len(union), columns), np.int64)
    for update in updates:
        at = np.searchsorted(union, update.rows)
        marks = np.zeros((len(update.rows), columns), bool)
        marks[:] = np.unpackbits(update.masks, axis=1, count=columns, bitorder="little")
        dense = np.zeros((len(update.rows), columns), np.float32)
        dense[marks] = update.values
        sums[at] += dense
        counts[at] += marks
    factor = coefficients[counts] if by_count else coefficients[0]
    table.data[union, :columns] += sums * factor


def pack_rows(rows: Ids, out: Bytes) -> int:
    """Write ascending rows as variable-length gaps (7 bits a byte, low first); return the bytes used."""
    wide = rows.astype(np.int64)
    gaps = np.diff(wide, prepend=-1) - 1
    if (gaps < 0).any() or len(out) < 5 * len(rows):
        raise ValueError("rows must ascend and the output have 5 bytes for each")
    lengths = np.ones(len(gaps), np.int64)
    for n in range(1, 5):
        lengths += gaps >= 1 << (7 * n)
    ends = np.cumsum(lengths)
    for n in range(5):
        more = lengths > n
        byte = (gaps[more] >> (7 * n)) & 127
        out[(ends - lengths)[more] + n] = byte | np.where(lengths[more] > n + 1, 128, 0)
    return int(ends[-1]) if len(ends) else 0


def unpack_rows(packed: Bytes | bytes | memoryview, limit: int, out: Ids) -> None:
    """Fill ``out`` with the rows in ``packed``; ValueError unless they are as many and below ``limit``."""
    data = np.frombuffer(packed, np.uint8).astype(np.int64)
    ends = np.flatnonzero(data < 128)
    starts = np.concatenate([[0], ends + 1])[:-1] if len(ends) else ends
    lengths = ends - starts + 1
    if len(ends) != len(out) or (len(data) and data[-1] >= 128) or (lengths > 5).any():
        raise ValueError("rows do not unpack")
    if not len(out):
        return
    within = np.arange(len(data)) - np.repeat(starts, lengths)
    gaps = np.add.reduceat((data & 127) << (7 * within), starts)
    rows = np.cumsum(gaps + 1) - 1
    if rows[-1] >= limit:
        raise ValueError("rows do not unpack")
    out[:] = rows


def widen_halves(halves: NDArray[np.uint16], exponent: int, floats: Floats) -> None:
    """Write ``halves`` times 2 to the power of minus ``exponent`` as float32; ValueError if not finite."""
    if len(halves) != len(floats) or not -120 < exponent < 120:
        raise ValueError("halves and floats must be as many, the exponent within 119")
    if ((halves & 0x7C00) == 0x7C00).any():
        raise ValueError("a value is not finite")
    floats[:] = halves.view(np.float16).astype(np.float32) * np.float32(2.0**-exponent)


def split_planes(values: Bytes, width: int, out: Bytes) -> None:
    """Regroup values of ``width`` bytes by place: all first bytes, all second bytes, ..."""
    out[:] = values.reshape(-1, width).T.reshape(-1)


def join_planes(planes: Bytes, width: int, out: Bytes) -> None:
    """Undo ``split_planes``."""
    out[:] = planes.reshape(width, -1).T.reshape(-1)


def _counts(starts: Ids) -> NDArray[np.int64]:
    wide = starts.astype(np.int64)
    return wide[1:] - wide[:-1]


def _parameters(table: Rows, ids: Ids, columns: int) -> Floats:
    shared: Floats = table.data[ids, :columns]
    residual: Floats = table.data[ids, columns : 2 * columns]
    return shared + residual


def _group_sums(values: Floats, counts: NDArray[np.int64]) -> Floats:
    sums = np.zeros((len(counts), values.shape[1]), np.float32)
    filled = counts > 0
    starts = (np.cumsum(counts) - counts)[filled]
    if len(starts):
        sums[filled] = np.add.reduceat(values, starts, axis=0)
    return sums


def _row_sums(values: Floats, starts: Ids) -> Floats:
    edges = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    sums: Floats = (edges[starts[1:]] - edges[starts[:-1]]).astype(np.float32)
    return sums


def _ascending(ids: Ids, limit: int) -> bool:
    return not len(ids) or (bool((ids[1:] > ids[:-1]).all()) and int(ids[-1]) < limit)


def _spans(starts: Ids, groups: int, total: int) -> bool:
    rising = bool((starts[1:] >= starts[:-1]).all())
    return len(starts) == groups + 1 and starts[0] == 0 and starts[-1] == total and rising


def _check_ratings(users: Rows, items: Rows, batch: RatingsArrays) -> None:
    if not (
        _ascending(batch.users, len(users.data))
        and _ascending(batch.items, len(items.data))
        and _spans(batch.starts, len(batch.users), len(batch.ratings))
        and len(batch.local) == len(batch.ratings)
        and int(batch.local.max(initial=0)) < max(len(batch.items), 1)
    ):
        raise ValueError("the mini-batch is damaged or larger than the tables")


def _check_clicks(features: Rows, batch: ClicksArrays) -> None:
    if not (
        len(batch.labels)
        and _ascending(batch.features, len(features.data))
        and _spans(batch.starts, len(batch.labels), len(batch.local))
        and (batch.values is None or len(batch.values) == len(batch.local))
        and (batch.weights is None or len(batch.weights) == len(batch.labels))
        and int(batch.local.max(initial=0)) < max(len(batch.features), 1)
    ):
        raise ValueError("the mini-batch is damaged or larger than the tables")


def _check_update(table: Rows, columns: int, update: Decoded) -> None:
    marks = np.unpackbits(update.masks.reshape(-1, (columns + 7) // 8), axis=1, bitorder="little")
    if not (
        _ascending(update.rows, len(table.data))
        and len(marks) == len(update.rows)
        and not marks[:, columns:].any()
        and int(marks.sum()) == len(update.values)
    ):
        raise ValueError("an update does not fit the table")
