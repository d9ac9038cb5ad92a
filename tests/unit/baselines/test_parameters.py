"""What a parameter server makes of requests, without a socket: sound ones, repeated ones, hostile ones."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlless.baselines import parameters as ps
from mlless.errors import CodecError
from mlless.job import Adagrad, JobSpec, Logistic, Stop, Sync
from mlless.local import begin

SPEC = JobSpec(
    dataset="none", fingerprint="0", groups=2, rows=60, held_out=0, batch_size=10,
    model=Logistic(features=20, l2=0.01, intercept=-1.0), optimizer=Adagrad(learning_rate=0.1),
    sync=Sync(significance=0.0, half=False, merge="sum"), stop=Stop(epochs=2), workers=2, seed=1,
)  # fmt: skip
INTERCEPT = np.zeros(1, np.uint32)


class Way:
    """The way to a server that is here."""

    def __init__(self) -> None:
        self.server = ps.ParameterServer(SPEC, begin(SPEC.model, SPEC.seed).replica, epoch=4)

    def ask(self, request: bytes) -> bytes:
        return self.server.answer(request)

    def close(self) -> None:
        pass


def push(worker: int, number: int, rows: list[int], value: float = 1.0, least: float = 0.0) -> ps.Push:
    ids = np.array(rows, np.uint32)
    parts = [ps.part_of(ids, np.full((len(rows), 1), value, np.float32), least)[0]]
    parts += [ps.part_of(INTERCEPT, np.full((1, 1), 0.5, np.float32), least)[0]]
    return ps.Push(worker, number, 10, tuple(parts))


def weights(way: Way, rows: list[int]) -> list[float]:
    answer, _, _ = ps.ask(way, ps.Pull((np.array(rows, np.uint32).tobytes(), INTERCEPT.tobytes())))
    assert isinstance(answer, ps.Values)
    return [float(x) for table in answer.tables for x in np.frombuffer(table, np.float32)]


def test_rows_are_pulled_and_a_push_moves_them() -> None:
    way = Way()
    assert weights(way, [2, 7]) == [0.0, 0.0, -1.0]
    assert ps.ask(way, push(0, 0, [2]))[0] == ps.Moved(True)
    moved, still, intercept = weights(way, [2, 7])
    assert moved == pytest.approx(0.1, rel=1e-2)  # Adagrad's first step is the rate
    assert still == 0.0
    assert intercept > -1.0


def test_a_push_that_comes_again_is_not_taken_twice() -> None:
    way = Way()
    for _ in range(2):
        assert ps.ask(way, push(0, 0, [2]))[0] == ps.Moved(True)
        once = weights(way, [2])
    ps.ask(way, push(1, 0, [2]))
    assert weights(way, [2]) != once
    with pytest.raises(CodecError, match="push 3 of 10 samples, when 1 is the next"):
        ps.ask(way, push(0, 3, [2]))


def test_the_model_of_each_epoch_s_end_is_kept_until_it_is_read() -> None:
    way, seen = Way(), {}
    for number in range(5):
        for worker in range(2):
            ps.ask(way, push(worker, number, [3]))
        seen[2 * (number + 1)] = weights(way, [3])
    for pushes in (4, 8):
        model, _, _ = ps.ask(way, ps.Read(pushes))
        features, intercept = ps.arrays(model, way.server._model.shapes)
        assert [features[3, 0], intercept[0, 0]] == seen[pushes]
    for pushes in (8, 3):
        with pytest.raises(CodecError, match=f"no model is kept after {pushes} pushes"):
            ps.ask(way, ps.Read(pushes))


def test_nobody_moves_the_model_of_a_training_that_is_over() -> None:
    way = Way()
    ps.ask(way, push(0, 0, [2]))
    last, _, _ = ps.ask(way, ps.Finish())
    assert ps.ask(way, push(0, 1, [2]))[0] == ps.Over()
    assert ps.ask(way, ps.Pull((b"", b"")))[0] == ps.Over()
    assert ps.ask(way, ps.Finish())[0] == last


def test_what_is_not_finite_is_told() -> None:
    assert ps.ask(Way(), push(0, 0, [2], value=float("nan"), least=1e-5))[0] == ps.Moved(False)


def test_what_is_small_is_not_pushed() -> None:
    rows, direction = (
        np.arange(3, dtype=np.uint32),
        np.array([[1e-6, 1.0], [0.0, -2.0], [0.0, 0.0]], np.float32),
    )
    part, entries = ps.part_of(rows, direction, 1e-5)
    assert entries == 2
    assert np.frombuffer(part.values, np.float32).tolist() == [1.0, -2.0]
    assert ps._direction(part, 3, 2).tolist() == [[0.0, 1.0], [0.0, -2.0], [0.0, 0.0]]


ROWS = np.array([1, 2], np.uint32).tobytes()
NOTHING = ps.Part(b"", b"", b"")


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (ps.Pull((ROWS,)), "zip"),
        (ps.Pull((np.array([2, 1], np.uint32).tobytes(), b"")), "not ascending rows of table features"),
        (ps.Pull((np.array([1, 20], np.uint32).tobytes(), b"")), "not ascending rows of table features"),
        (ps.Pull((b"abc", b"")), "buffer size"),
        (ps.Push(0, 0, 5, (ps.Part(ROWS, b"\1", b""), NOTHING)), "1 bytes of masks for 2 rows"),
        (ps.Push(0, 0, 5, (ps.Part(ROWS, b"\1\2", b""), NOTHING)), "columns beyond 1"),
        (ps.Push(0, 0, 5, (ps.Part(ROWS, b"\1\0", bytes(8)), NOTHING)), "2 values for 1 entries"),
        (ps.Push(0, 0, -5, ()), "push 0 of -5 samples"),
        (ps.Push(-1, 0, 5, ()), "no worker -1"),
        (ps.Push(2, 0, 5, ()), "no worker 2"),
    ],
)
def test_a_request_that_is_none_is_refused_and_changes_nothing(request_: ps.Request, error: str) -> None:
    way = Way()
    before, _, _ = ps.ask(way, ps.Read(0))
    with pytest.raises(CodecError, match=error):
        ps.ask(way, request_)
    assert ps.ask(way, ps.Finish())[0] == before


ANYTHING = st.recursive(st.integers(-5, 2**40) | st.binary(max_size=12) | st.none(), st.lists, max_leaves=8)
SHAPED = st.tuples(
    st.sampled_from(["pull", "push", "read", "finish"]), ANYTHING, ANYTHING, ANYTHING, ANYTHING
)
REQUESTS = SHAPED.flatmap(lambda parts: st.integers(1, 5).map(lambda count: parts[:count]))


@given(st.binary(max_size=60) | REQUESTS.map(msgspec.msgpack.encode))
def test_any_bytes_are_answered(data: bytes) -> None:
    answer = msgspec.msgpack.decode(Way().ask(data))
    assert answer[0] in ("refused", "values", "over", "moved")


def test_an_answer_that_is_none_is_told() -> None:
    class Liar:
        def ask(self, request: bytes) -> bytes:
            return b"\xc1"

        def close(self) -> None:
            pass

    with pytest.raises(CodecError, match="not an answer of a parameter server"):
        ps.ask(Liar(), ps.Finish())
    with pytest.raises(CodecError, match="not an answer of this model's server"):
        ps.arrays(ps.Values((b"abc", b"")), Way().server._model.shapes)
