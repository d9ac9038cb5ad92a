"""The kernels in NumPy: what ``native.c`` computes, and the stand-in where there is no compiler.

Merge and codec give the same bits as the compiled kernels; a step, whose sums run in another
order, gives the same numbers to rounding.
"""

from __future__ import annotations

import struct
from typing import Any

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
    Total,
    distinct_ids,
)

ADAGRAD, NESTEROV = 0, 1
FLOATS, HALVES, MERGED = 0, 1, 2  # what becomes of a change, see `Outbox`
# Of an update's bytes, whose layout stands in exchange/codec.py.
_MAGIC, _VERSION = b"MU", 1
_HEAD, _PART = struct.Struct("<2sBBBI"), struct.Struct("<IIIb")
_HALF, _PLANES = 1, 2
_LARGEST_EXPONENT = 100


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
    user_rule: Rule,
    item_rule: Rule,
    threshold: float,
    user_mode: int,
    item_mode: int,
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
        change_rows(users, columns, batch.users, p_sum * factor, user_rule, threshold, user_mode, user_out),
        change_rows(items, columns, batch.items, q_sum * factor, item_rule, threshold, item_mode, item_out),
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
    mode: int,
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
        change_rows(features, 1, batch.features, gradient[:, None], rule, threshold, mode, out),
        change_rows(intercept, 1, np.zeros(1, np.uint32), mean, free, threshold, mode, intercept_out),
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
    mode: int,
    out: Outbox,
) -> Sent:
    """Move the rows ``ids`` along ``direction`` (rows x columns), then publish what is significant."""
    if rule.kind not in (ADAGRAD, NESTEROV):
        raise ValueError("no such rule, or tables do not have this shape")
    sections = [table.data[:, n * columns : (n + 1) * columns] for n in range(3)]
    shared, residual, state = (section[ids] for section in sections)
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
        sent = publish(ids, shared, residual, threshold, mode, out)
    for section, rows in zip(sections, (shared, residual, state), strict=True):
        section[ids] = rows
    return sent


def publish(ids: Ids, shared: Floats, residual: Floats, threshold: float, mode: int, out: Outbox) -> Sent:
    """Fill the outbox with the entries where ``|residual| > threshold * |shared|``.

    Their residual becomes zero or, in half precision, what rounding left of it; an entry that
    rounds to zero is kept back. Halves saturate: the excess, too, stays in the residual. ``MERGED``
    sends nothing: all of the residual goes into ``shared``.
    """
    finite = bool(np.isfinite(residual).all())
    if mode == MERGED:
        shared += residual
        residual[:] = 0
        return Sent(0, 0, 0.0, int(finite))
    chosen = np.abs(residual) > np.float32(threshold) * np.abs(shared)
    if mode == HALVES:
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


@np.errstate(all="ignore")  # what is not finite is reported, not warned of
def flush_table(table: Rows, columns: int, ids: Ids | None, threshold: float, mode: int, out: Outbox) -> Sent:
    """Publish what is significant of the residuals of some rows, ascending, or of all if ``ids`` is None."""
    if ids is None:
        ids = np.arange(len(table.data), dtype=np.uint32)
    elif not _ascending(ids, len(table.data)):
        raise ValueError("rows must ascend, and be in the table")
    sections = [table.data[:, n * columns : (n + 1) * columns] for n in range(2)]
    shared, residual = (section[ids] for section in sections)
    sent = publish(ids, shared, residual, threshold, mode, out)
    for section, rows in zip(sections, (shared, residual), strict=True):
        section[ids] = rows
    return sent


def assemble_ratings(
    users: Ids,
    items: Ids,
    ratings: Floats,
    begins: NDArray[np.int64],
    ends: NDArray[np.int64],
    user_rows: int,
    item_rows: int,
    out: RatingsArrays,
) -> tuple[int, int]:
    """Write the ratings of the rows ``begins[i]:ends[i]`` into ``out``, grouped by user.

    ``out`` may have more room than they need. Users and items are distinct and ascend; a user's ratings
    are in the order of segments and rows. Returns how many users and items there are. ValueError if an id is
    beyond its table, a segment beyond the rows, or the room too small.
    """
    if not len(users) == len(items) == len(ratings):
        raise ValueError("the columns are not of one length")
    rows = _rows_of(begins, ends, len(users), (user_rows, item_rows))
    users, items, ratings = users[rows], items[rows], ratings[rows]
    if len(users) and (int(users.max()) >= user_rows or int(items.max()) >= item_rows):
        raise ValueError("an id is beyond its table")
    order = np.argsort(users, kind="stable")
    distinct, counts = np.unique(users, return_counts=True)
    _put(out.users, distinct)
    _put(out.starts, np.append(0, np.cumsum(counts)))
    _put(out.ratings, ratings[order])
    return len(distinct), _put_named(items[order], out.items, out.local, out.width)


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
) -> int:
    """Write the rows ``begins[i]:ends[i]`` into ``out``, in this order.

    ``out`` may have more room than they need. Features are distinct and ascend. Values and weights that are
    missing are 1 where ``out`` has a place for them. Returns how many features there are. ValueError as
    `assemble_ratings`.
    """
    if (
        len(starts) != len(labels) + 1
        or (values is not None and len(values) != len(indices))
        or (weights is not None and len(weights) != len(labels))
    ):
        raise ValueError("the columns are not of one length")
    if (values is not None and out.values is None) or (weights is not None and out.weights is None):
        raise ValueError("the output has no place for values or weights")
    rows = _rows_of(begins, ends, len(labels), (feature_rows,))
    counts = _counts(starts)[rows]
    if (counts < 0).any() or (starts[begins] > len(indices)).any() or (starts[ends] > len(indices)).any():
        raise ValueError("starts do not ascend within the entries")
    entries = _ranges(starts[:-1][rows].astype(np.int64), counts)
    features = indices[entries]
    if len(features) and int(features.max()) >= feature_rows:
        raise ValueError("an id is beyond its table")
    _put(out.labels, labels[rows])
    _put(out.starts, np.append(0, np.cumsum(counts)))
    if out.values is not None:
        _put(out.values, np.ones(len(entries), np.float32) if values is None else values[entries])
    if out.weights is not None:
        _put(out.weights, np.ones(len(rows), np.float32) if weights is None else weights[rows])
    return _put_named(features, out.features, out.local, out.width)


def _rows_of(
    begins: NDArray[np.int64], ends: NDArray[np.int64], rows: int, tables: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return the numbers of the rows ``begins[i]:ends[i]``."""
    if (
        len(begins) != len(ends)
        or not all(0 <= table <= 1 << 32 for table in tables)
        or ((begins < 0) | (begins > ends) | (ends > rows)).any()
    ):
        raise ValueError("a segment is not within the rows, or a table has more than 2^32")
    return _ranges(begins, ends - begins)


def _ranges(begins: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``begins[i]``, and so many numbers from there on, for each i."""
    before = np.cumsum(counts) - counts
    return np.repeat(begins - before, counts) + np.arange(counts.sum())


def _put(room: NDArray[Any], values: NDArray[Any]) -> None:
    if len(values) > len(room):
        raise ValueError("the output is too small")
    room[: len(values)] = values


def _put_named(ids: Ids, rows: Ids, local: NDArray[Any], width: int) -> int:
    distinct, places = np.unique(ids, return_inverse=True)
    if width not in (2, 4) or width != local.itemsize or len(distinct) > 1 << 8 * width:
        raise ValueError("the output is too small")
    _put(rows, distinct)
    _put(local, places)
    return len(distinct)


def pack_update(parts: list[TableUpdate], half: int, planes: int, out: Bytes) -> int:
    """Write an update, one part for each table, in the layout of ``exchange.codec``; return the bytes used.

    With ``half`` the values are float16. With ``planes`` they are regrouped by place: all first bytes, all
    second bytes, and so on. ValueError if ``out`` is too small. Beside masks and values it needs 9 bytes, 13
    for each table, and 5 for each row.
    """
    head = _HEAD.pack(_MAGIC, _VERSION, half * _HALF | planes * _PLANES, len(parts), 0)
    headers, body, room = b"", b"", _HEAD.size
    for part in parts:
        packed, values = _pack_rows(part.rows), part.values.view(np.uint8)
        if planes:
            values = values.reshape(-1, part.values.itemsize).T
        if abs(part.exponent) > _LARGEST_EXPONENT:
            raise ValueError("rows must ascend, the exponent be within 100, and the output have room")
        headers += _PART.pack(len(part.rows), len(part.values), len(packed), part.exponent)
        body += packed + part.masks.tobytes() + values.tobytes()
        room += _PART.size + 5 * len(part.rows) + part.masks.nbytes + values.nbytes
    if room > len(out):
        raise ValueError("rows must ascend, the exponent be within 100, and the output have room")
    data = head + headers + body
    out[: len(data)] = np.frombuffer(data, np.uint8)
    return len(data)


def unpack_update(data: Bytes | bytes | memoryview, shapes: list[tuple[int, int]]) -> list[TableUpdate]:
    """Return the parts of a packed update with values in float32; ValueError if it does not fit ``shapes``.

    These are the rows and columns of the tables. The checksum is not looked at.
    """
    data = np.frombuffer(data, np.uint8).tobytes()
    if len(data) < _HEAD.size + _PART.size * len(shapes):
        raise ValueError("not an update of these tables")
    magic, version, flags, tables, _ = _HEAD.unpack_from(data)
    if (magic, version, tables) != (_MAGIC, _VERSION, len(shapes)) or flags & ~(_HALF | _PLANES):
        raise ValueError("not an update of these tables")
    headers = [_PART.unpack_from(data, _HEAD.size + _PART.size * number) for number in range(tables)]
    at, dtype = _HEAD.size + _PART.size * tables, np.dtype(np.uint16 if flags & _HALF else np.uint32)
    parts = []
    for (rows, count, row_bytes, exponent), (limit, columns) in zip(headers, shapes, strict=True):
        masks, values = at + row_bytes, at + row_bytes + rows * ((columns + 7) // 8)
        end = values + count * dtype.itemsize
        if rows > limit or row_bytes > 5 * rows or abs(exponent) > _LARGEST_EXPONENT or end > len(data):
            raise ValueError("not an update of these tables")
        parts.append(
            TableUpdate(
                _unpack_rows(data[at:masks], rows, limit),
                np.frombuffer(data[masks:values], np.uint8).reshape(rows, (columns + 7) // 8),
                _as_floats(_values(data[values:end], dtype, bool(flags & _PLANES)), exponent),
            )
        )
        if np.unpackbits(parts[-1].masks, axis=1, bitorder="little")[:, columns:].any():
            raise ValueError("not an update of these tables")
        if int(np.bitwise_count(parts[-1].masks).sum()) != count:
            raise ValueError("not an update of these tables")
        at = end
    if at != len(data):
        raise ValueError("not an update of these tables")
    return parts


@np.errstate(all="ignore")
def merge_updates(
    tables: list[tuple[Rows, int, int]],
    updates: list[Bytes | bytes | memoryview],
    coefficients: Floats,
    by_count: int,
) -> None:
    """Add to the tables' ``shared`` the packed updates' sum, in their order, times a coefficient.

    That is ``coefficients[0]`` or, ``by_count``, the one at the number of publishers of the entry. A table
    is its rows, how many columns they have, and whether its updates count whole, times 1. Nothing is written
    if an update does not fit the tables: a ValueError, whose second argument is the update's number.
    """
    if len(coefficients) < (len(updates) + 1 if by_count else 1):
        raise ValueError("too few coefficients")
    shapes = [(len(table.data), columns) for table, columns, _ in tables]
    unpacked = []
    for number, update in enumerate(updates):
        try:
            unpacked.append(unpack_update(update, shapes))
        except ValueError as error:
            raise ValueError("not an update of these tables", number) from error
    for number, (table, columns, whole) in enumerate(tables):
        parts = [update[number] for update in unpacked if len(update[number].values)]  # others touch nothing
        if whole:
            _merge(table, columns, parts, np.ones(1, np.float32), 0)
        else:
            _merge(table, columns, parts, coefficients, by_count)


@np.errstate(all="ignore")
def sum_updates(
    kept: list[tuple[tuple[Floats, int], int, int]],
    updates: list[Bytes | bytes | memoryview],
    coefficients: Floats,
    by_count: int,
    rows: list[Ids],
) -> list[tuple[int, float]]:
    """Add what `merge_updates` would add to tables to what is ``kept`` of them, rows x columns.

    ``rows`` have room for the ids of all rows of each table: those that were touched are written there.
    Returns how many these are, and the largest size of an entry of theirs. What is no finite number any more
    becomes the largest one.
    """
    targets = [(Rows(table.copy(), columns), columns, whole) for (table, _), columns, whole in kept]
    if len(rows) != len(kept) or any(
        len(room) < len(table.data) for room, (table, *_) in zip(rows, targets, strict=True)
    ):
        raise ValueError("there must be room for the rows of each table")
    merge_updates(targets, updates, coefficients, by_count)
    shapes = [(len(table.data), columns) for table, columns, _ in targets]
    unpacked, largest, sums = (
        [unpack_update(one, shapes) for one in updates],
        float(np.finfo(np.float32).max),
        [],
    )
    for number, ((table, _), target, room) in enumerate(
        zip((one[0] for one in kept), targets, rows, strict=True)
    ):
        parts = [update[number].rows for update in unpacked if len(update[number].values)]
        touched = distinct_ids(parts)
        new = np.nan_to_num(target[0].data[touched], nan=largest, posinf=largest, neginf=-largest)
        table[touched], room[: len(touched)] = new, touched
        sums.append((len(touched), float(np.abs(new).max(initial=0))))
    return sums


def publish_sums(
    shared: Rows, kept: Floats, columns: int, ids: Ids, threshold: float, mode: int, out: Outbox
) -> Sent:
    """Publish what is significant of what is kept of the rows ``ids``, which ascend; the rest stays kept."""
    if not _ascending(ids, len(shared.data)):
        raise ValueError("rows must ascend, and be in the table")
    if mode == MERGED:
        raise ValueError("the outbox is too small")
    sums = kept[ids]
    with np.errstate(all="ignore"):
        sent = publish(ids, shared.data[ids, :columns], sums, threshold, mode, out)
    kept[ids] = sums
    return sent


def cut_update(
    part: TableUpdate, half: int, shards: int, block: int, out: TableUpdate
) -> list[tuple[int, int]]:
    """Write an update's rows, masks and values into ``out``, shard by shard; return how many each shard has.

    Blocks of so many rows are dealt to the shards in turn. ``half``: the values are float16.
    """
    counts = np.bitwise_count(part.masks).sum(axis=1, dtype=np.intp)
    if int(counts.sum()) != len(part.values) or (part.values.itemsize == 2) != bool(half):
        raise ValueError("not an update, or its pieces have no room")
    shard = part.rows // block % shards
    of_value = np.repeat(shard, counts)
    order = np.argsort(shard, kind="stable")
    out.rows[: len(order)], out.masks[: len(order)] = part.rows[order], part.masks[order]
    out.values[: len(of_value)] = part.values[np.argsort(of_value, kind="stable")]
    sizes = (np.bincount(numbers, minlength=shards).tolist() for numbers in (shard, of_value))
    return list(zip(*sizes, strict=True))


@np.errstate(all="ignore")
def add_update(totals: list[Total], update: Bytes | bytes | memoryview) -> None:
    """Add a packed update to what the ones before it come to, one total a table.

    Nothing is written if the update does not fit the tables: a ValueError.
    """
    parts = unpack_update(update, [(len(total.touched), total.columns) for total in totals])
    for total, part in zip(totals, parts, strict=True):
        if len(part.values):  # others touch nothing
            total.touched[part.rows] = 1
            _add(part, part.rows, total.sums, total.counts if len(total.counts) else None, total.columns)


def _merge(table: Rows, columns: int, parts: list[TableUpdate], coefficients: Floats, by_count: int) -> None:
    union = distinct_ids([part.rows for part in parts])
    sums = np.zeros((len(union), columns), np.float32)
    counts = np.zeros((len(union), columns), np.int32) if by_count else None
    for part in parts:
        _add(part, np.searchsorted(union, part.rows), sums, counts, columns)
    factor = coefficients[0] if counts is None else coefficients[counts]
    table.data[union, :columns] += sums * factor


def _add(
    part: TableUpdate,
    at: NDArray[np.integer],
    sums: Floats,
    counts: NDArray[np.int32] | None,
    columns: int,
) -> None:
    """Add an update's values to the rows ``at`` of the sums, and to the counts how many there are."""
    marks = np.unpackbits(part.masks, axis=1, count=columns, bitorder="little").astype(bool)
    dense = np.zeros((len(part.rows), columns), np.float32)
    dense[marks] = part.values
    sums[at, :columns] += dense
    if counts is not None:
        counts[at, :columns] += marks


def _pack_rows(rows: Ids) -> bytes:
    """Return ascending rows as variable-length gaps, 7 bits a byte, low first."""
    wide = rows.astype(np.int64)
    gaps = np.diff(wide, prepend=-1) - 1
    if (gaps < 0).any():
        raise ValueError("rows must ascend, the exponent be within 100, and the output have room")
    lengths = np.ones(len(gaps), np.int64)
    for n in range(1, 5):
        lengths += gaps >= 1 << (7 * n)
    ends = np.cumsum(lengths)
    out = np.empty(int(lengths.sum()), np.uint8)
    for n in range(5):
        more = lengths > n
        byte = (gaps[more] >> (7 * n)) & 127
        out[(ends - lengths)[more] + n] = byte | np.where(lengths[more] > n + 1, 128, 0)
    return out.tobytes()


def _unpack_rows(packed: bytes, count: int, limit: int) -> Ids:
    """Return the rows in ``packed``; ValueError unless they are ``count`` and below ``limit``."""
    data = np.frombuffer(packed, np.uint8).astype(np.int64)
    ends = np.flatnonzero(data < 128)
    starts = np.concatenate([[0], ends + 1])[:-1] if len(ends) else ends
    lengths = ends - starts + 1
    if len(ends) != count or (len(data) and data[-1] >= 128) or (lengths > 5).any():
        raise ValueError("not an update of these tables")
    if not count:
        return np.empty(0, np.uint32)
    within = np.arange(len(data)) - np.repeat(starts, lengths)
    gaps = np.add.reduceat((data & 127) << (7 * within), starts)
    rows = np.cumsum(gaps + 1) - 1
    if rows[-1] >= min(limit, 1 << 32):
        raise ValueError("not an update of these tables")
    return rows.astype(np.uint32)


def _values(raw: bytes, dtype: np.dtype[Any], planes: bool) -> NDArray[Any]:
    data = np.frombuffer(raw, np.uint8)
    if planes:
        data = data.reshape(dtype.itemsize, -1).T
    return np.frombuffer(data.tobytes(), dtype)


def _as_floats(bits: NDArray[Any], exponent: int) -> Floats:
    if bits.dtype == np.uint16:
        floats = bits.view(np.float16).astype(np.float32) * np.float32(2.0**-exponent)
    else:
        floats = bits.view(np.float32)
    if not np.isfinite(floats).all():
        raise ValueError("not an update of these tables")
    return floats


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
