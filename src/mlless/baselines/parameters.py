"""What a parameter server does with requests: bytes in, bytes out, no socket, no clock.

It holds the model and the state of its optimizer. A mini-batch's rows are pulled, and its gradient is pushed.
That moves the model at once: it is a step of its own, with the job's optimizer, whoever else has moved what
since the pull. Rows are named by 32 bits each; nothing in a request makes it allocate more than the model
takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mlless.baselines.gradients import BSP
from mlless.errors import CodecError
from mlless.exchange.filter import SignificanceFilter
from mlless.job import JobSpec
from mlless.kernels.arrays import Floats, Ids
from mlless.models import model_of
from mlless.models.base import Moment
from mlless.replica import Replica, Table, TableShape

_SPARE = 4096  # bytes of a message beside its arrays


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    pass


class Part(_Message, frozen=True):
    """A gradient's part for a table: rows (uint32), masks of columns, and what these name (float32)."""

    rows: bytes
    masks: bytes
    values: bytes


class Pull(_Message, frozen=True, tag="pull"):
    """Asks for these rows of each table."""

    rows: tuple[bytes, ...]


class Push(_Message, frozen=True, tag="push"):
    """The direction of descent of a worker's mini-batch of so many samples, the one of this number from 0."""

    worker: int
    number: int
    samples: int
    parts: tuple[Part, ...]


class Read(_Message, frozen=True, tag="read"):
    """Asks for the model after so many pushes, at the end of an epoch; who has read it will not ask again."""

    pushes: int


class Finish(_Message, frozen=True, tag="finish"):
    """Ends the training, and asks for the model."""


class Values(_Message, frozen=True, tag="values"):
    """What was asked for, table by table."""

    tables: tuple[bytes, ...]


class Moved(_Message, frozen=True, tag="moved"):
    """The gradient has moved the model, all of which that was moved is ``finite``."""

    finite: bool


class Over(_Message, frozen=True, tag="over"):
    """The training has ended."""


class Refused(_Message, frozen=True, tag="refused"):
    """The request is none for this model."""

    error: str


Request = Pull | Push | Read | Finish
Answer = Values | Moved | Over | Refused
_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


class Asks(Protocol):
    """The way to a parameter server: a request's bytes there, those of the answer back."""

    def ask(self, request: bytes) -> bytes:
        """Return the answer."""
        ...

    def close(self) -> None:
        """Let go of it. May be called more than once."""
        ...


def ask(way: Asks, request: Request) -> tuple[Values | Moved | Over, int, int]:
    """Return the answer to a request, and how many bytes went there and came back."""
    asked = _encoder.encode(request)
    told = way.ask(asked)
    try:
        answer: Answer = _answers.decode(told)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CodecError("not an answer of a parameter server", found=str(error)) from error
    if isinstance(answer, Refused):
        raise CodecError("the parameter server has refused a request", found=answer.error)
    return answer, len(asked), len(told)


def work_of(request: bytes) -> str:
    """Return what a request makes the server do: ``push`` a gradient, or have values pulled from it."""
    return "push" if isinstance(_requests.decode(request), Push) else "pull"


def arrays(values: Values, shapes: Sequence[TableShape]) -> list[Floats]:
    """Return the rows in an answer, table by table; CodecError if they are not of these shapes."""
    try:
        parts = zip(shapes, values.tables, strict=True)
        return [np.frombuffer(data, np.float32).reshape(-1, shape.columns) for shape, data in parts]
    except ValueError as error:
        raise CodecError("not an answer of this model's server", found=str(error)) from error


def largest(shapes: Sequence[TableShape]) -> int:
    """Return how many bytes a request or an answer has at most: a gradient of every parameter."""
    return _SPARE + sum(s.rows * (4 + _mask(s.columns) + 4 * s.columns) for s in shapes)


def _mask(columns: int) -> int:
    return (columns + 7) // 8


class ParameterServer:
    """The model of a job, which is at its start in ``replica``; an ``epoch`` has so many pushes."""

    def __init__(self, spec: JobSpec, replica: Replica, epoch: int) -> None:
        self._spec, self._epoch, self._model, self._replica = spec, epoch, model_of(spec.model), replica
        self._pushes, self._samples, self._over = 0, 1, False
        self._numbers: dict[int, int] = {}
        self._kept = {0: self._whole()}  # models at the end of an epoch, until they are read

    def answer(self, request: bytes) -> bytes:
        """Return the answer to a request."""
        try:
            answer = self._answer(_requests.decode(request))
        except (msgspec.DecodeError, ValueError) as error:
            answer = Refused(str(error))
        return _encoder.encode(answer)

    def _answer(self, request: Request) -> Answer:
        match request:
            case Read(pushes):
                kept = self._kept.get(pushes)
                if kept is None:
                    raise ValueError(f"no model is kept after {pushes} pushes, but after {list(self._kept)}")
                self._kept = {number: one for number, one in self._kept.items() if number > pushes}
                return kept
            case Finish():
                self._settle()
                return self._whole()
            case _ if self._over:
                return Over()
            case Pull(rows):
                tables = self._tables(rows)
                return Values(tuple(table.shared[ids].tobytes() for table, ids in tables))
            case Push():
                return self._push(request)

    def _tables(self, rows: tuple[bytes, ...]) -> list[tuple[Table, Ids]]:
        return [
            (table, _rows(data, table.shape)) for table, data in zip(self._replica.tables, rows, strict=True)
        ]

    def _push(self, push: Push) -> Answer:
        """Move the model, unless that push has come before, from a worker that was lost since."""
        if not 0 <= push.worker < self._spec.workers:
            raise ValueError(f"no worker {push.worker}")
        expected = self._numbers.get(push.worker, 0)
        if push.number > expected or push.samples < 0:
            raise ValueError(f"push {push.number} of {push.samples} samples, when {expected} is the next")
        if push.number < expected:
            return Moved(True)
        finite = True
        if push.samples:
            tables = self._tables(tuple(part.rows for part in push.parts))
            directions = [
                (ids, _direction(part, len(ids), table.shape.columns))
                for (table, ids), part in zip(tables, push.parts, strict=True)
            ]
            moment = Moment(self._pushes, self._pushes // self._epoch, 1)
            optimizer, self._samples = self._spec.optimizer, push.samples
            finite = self._model.move(self._replica, directions, optimizer, moment, push.samples)
        self._numbers[push.worker], self._pushes = expected + 1, self._pushes + 1
        if self._pushes % self._epoch == 0:
            self._kept[self._pushes] = self._whole()
        return Moved(finite)

    def _settle(self) -> None:
        """Bring every row up to date, once."""
        if not self._over and self._pushes:
            last = self._pushes - 1
            moment = Moment(last, last // self._epoch, 1)
            moved = self._model.settle(self._replica, self._spec.optimizer, moment, self._samples)
            SignificanceFilter(BSP, self._replica, alone=True).flush(moved)
        self._over = True

    def _whole(self) -> Values:
        return Values(tuple(table.shared.tobytes() for table in self._replica.tables))


def _rows(data: bytes, shape: TableShape) -> Ids:
    """Return row numbers; ValueError unless they ascend and are those of the table."""
    rows = np.frombuffer(data, np.uint32)
    if len(rows) and (int(rows[-1]) >= shape.rows or not (rows[1:] > rows[:-1]).all()):
        raise ValueError(f"not ascending rows of table {shape.name}, which has {shape.rows}")
    return rows


def _direction(part: Part, rows: int, columns: int) -> Floats:
    """Return the direction of some rows, zero where nothing is named."""
    masks = np.frombuffer(part.masks, np.uint8)
    if len(masks) != rows * _mask(columns):
        raise ValueError(f"{len(masks)} bytes of masks for {rows} rows of {columns} columns")
    marks = np.unpackbits(masks.reshape(rows, -1), axis=1, bitorder="little")
    if marks[:, columns:].any():
        raise ValueError(f"a mask names columns beyond {columns}")
    named = marks[:, :columns].astype(np.bool_)
    values = np.frombuffer(part.values, np.float32)
    if len(values) != int(named.sum()):
        raise ValueError(f"{len(values)} values for {int(named.sum())} entries")
    direction = np.zeros((rows, columns), np.float32)
    direction[named] = values
    return direction


def part_of(rows: Ids, direction: Floats, least: float) -> tuple[Part, int]:
    """Return a gradient's part for a table, without entries below ``least``; and how many it has."""
    # What is no number is passed on, for the server to find.
    named: NDArray[np.bool_] = ~(np.abs(direction) < least) & (direction != 0)
    values = direction[named]
    masks = np.packbits(named, axis=1, bitorder="little")
    return Part(rows.tobytes(), masks.tobytes(), values.tobytes()), len(values)
