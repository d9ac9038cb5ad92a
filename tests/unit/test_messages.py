"""What supervisor and workers say to each other, and what strangers might."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlless import messages
from mlless.errors import CodecError
from mlless.messages import (
    Abort,
    Begin,
    Commit,
    Donate,
    Donated,
    Evaluation,
    Failure,
    FromWorker,
    HandedOver,
    Hello,
    Origin,
    Plan,
    Prepare,
    Ready,
    Report,
    Substitute,
    Substituted,
    Sums,
    Times,
    ToWorker,
    decode_from_worker,
    decode_to_worker,
    encode,
)

REPORT = Report(
    worker=0,
    generation=0,
    step=7,
    samples=64,
    loss=1.5,
    published=True,
    finite=True,
    entries=9,
    bytes_out=8,
    bytes_in=7,
    reads=2,
    bytes_fetched=6,
    times=Times(fetch=0.5, wait=0.25),
    evaluation=Evaluation(Sums(3, 0.5, (1, 2), (3, 4)), "cd", 5, 99),
)
FROM = (
    Hello(worker=3, generation=1, pid=4711, protocol=1, version="0.1"),
    Hello(worker=3, generation=1, pid=4711, protocol=1, version="0.1", left=899.5),
    Ready(worker=3, generation=1),
    REPORT,
    Donated(worker=0, generation=0, origin=Origin("donation/3/0.0", 3, "ab", owned=False)),
    HandedOver(0, 1, Origin("handover/3/0.1", 3, "ab"), bytes_in=5, bytes_kept=6, times=Times(keep=0.5)),
    Substituted(worker=0, generation=0, report=REPORT),
    Failure(worker=2, generation=0, step=-1, error="it broke: ü", traceback="Traceback ...", exit_code=4),
)
TO = (
    Commit(
        step=4,
        published=((0, 0), (2, 1)),
        plans=(Plan(5, (0, 1, 2), 1, 9, 4, b"\0\1", (1,), True), Plan(6, (0, 2), 1, 9, 5, last=True)),
        best=((0, 1), (2, 0)),
        checkpoint=((2, 0),),
        handover=((0, 1), (2, 0)),
        end=True,
        mergers=((2, 0),),
        left=((1, 3),),
    ),
    Commit(step=-1, published=(), plans=()),
    Prepare((Plan(0, (0, 1), 0, 9, 4, b"\0\1"),)),
    Begin(Origin("checkpoint/4/0.0", 4, "", ("checkpoint/4/1.0",)), (Plan(0, (0, 1), 0, 9, 4, b"\0\1"),)),
    Donate(step=3),
    Substitute(step=3, worker=1, generation=2),
    Abort(reason="Interrupted"),
)
DECODERS: tuple[Callable[[bytes], FromWorker | ToWorker], ...] = (decode_from_worker, decode_to_worker)


@pytest.mark.parametrize("message", FROM, ids=lambda m: type(m).__name__)
def test_workers_messages_come_out_as_they_went_in(message: FromWorker) -> None:
    data = encode(message)
    assert decode_from_worker(data) == decode_from_worker(memoryview(data)) == message
    with pytest.raises(CodecError, match="not a supervisor's message"):
        decode_to_worker(data)


@pytest.mark.parametrize("message", TO, ids=lambda m: type(m).__name__)
def test_supervisors_messages_come_out_as_they_went_in(message: ToWorker) -> None:
    data = encode(message)
    assert decode_to_worker(data) == decode_to_worker(memoryview(data)) == message
    with pytest.raises(CodecError, match="not a worker's message"):
        decode_from_worker(data)


ids = st.integers(0, 2**40)
plans = st.builds(
    Plan,
    st.integers(-1, 2**40),
    st.lists(ids).map(tuple),
    ids,
    ids,
    ids,
    st.binary(max_size=20),
    st.lists(ids).map(tuple),
    st.booleans(),
    st.booleans(),
)
commits = st.builds(
    Commit,
    st.integers(-1, 2**40),
    st.lists(st.tuples(ids, ids)).map(tuple),
    st.lists(plans, max_size=2).map(tuple),
    st.lists(st.tuples(ids, ids)).map(tuple),
    st.lists(st.tuples(ids, ids)).map(tuple),
    st.lists(st.tuples(ids, ids)).map(tuple),
    st.booleans(),
)


@given(commit=commits)
@settings(max_examples=200)
def test_any_commit_survives_the_wire(commit: Commit) -> None:
    assert decode_to_worker(encode(commit)) == commit


def test_a_loss_that_is_not_finite_survives_the_wire() -> None:
    report = msgspec.structs.replace(REPORT, loss=math.nan)
    decoded = decode_from_worker(encode(report))
    assert isinstance(decoded, Report)
    assert math.isnan(decoded.loss)


def test_trainers_are_the_members_that_do_not_flush() -> None:
    assert Plan(1, (0, 2, 3), 0, 4, 1, flush=(2,)).trainers == (0, 3)
    assert Plan(1, (0, 2, 3), 0, 4, 1, last=True).trainers == ()


def test_a_plan_tells_how_far_its_step_gets() -> None:
    assert Plan(1, (0, 2, 3), 2, 4, 1, flush=(2,)).done == 2.5
    assert Plan(1, (0, 2), 3, 4, 0, flush=(0, 2)).done == 3.0


@given(data=st.binary(max_size=80))
@settings(max_examples=2000)
def test_random_bytes_are_no_message(data: bytes) -> None:
    for decode in DECODERS:
        with pytest.raises(CodecError):
            decode(data)


@pytest.mark.parametrize("message", [*FROM, *TO], ids=lambda m: type(m).__name__)
def test_mutants_are_messages_or_refused(message: FromWorker | ToWorker) -> None:
    """3,000 cases each: flipped bits, cut and inserted bytes."""
    random = np.random.default_rng(1)
    data = encode(message)
    for _ in range(3000):
        changed = bytearray(data)
        for _ in range(random.integers(1, 4)):
            kind, at = random.integers(0, 3), random.integers(0, max(1, len(changed)))
            if kind == 0 and changed:
                changed[at] ^= 1 << random.integers(0, 8)
            elif kind == 1:
                del changed[at : at + random.integers(1, 5)]
            else:
                changed[at:at] = bytes(random.integers(0, 256, random.integers(1, 5)).astype(np.uint8))
        for decode in DECODERS:
            try:
                found = decode(bytes(changed))
            except CodecError:
                continue
            assert isinstance(found, FromWorker | ToWorker)


@pytest.mark.parametrize("message", [*FROM, *TO], ids=lambda m: type(m).__name__)
def test_a_message_cut_short_or_followed_by_more_is_refused(message: FromWorker | ToWorker) -> None:
    data = encode(message)
    for decode in DECODERS:
        for size in range(len(data)):
            with pytest.raises(CodecError):
                decode(data[:size])
        with pytest.raises(CodecError):
            decode(data + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x91" * 200_000 + b"\x00", id="arrays in arrays"),
        pytest.param(b"\x81\xa1a" * 200_000 + b"\x00", id="maps in maps"),
        pytest.param(b"\x92\xa6commit" + b"\x91" * 200_000, id="arrays in a commit"),
        pytest.param(b"\x9a\xa6report" + b"\x81\xa1a" * 200_000, id="maps in a report"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="array of 4 billion"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map of 4 billion"),
        pytest.param(b"\xdb\xff\xff\xff\xff", id="text of 4 GB"),
        pytest.param(b"\x94\xa6commit\x00\xdd\xff\xff\xff\xff\x00", id="4 billion publishers"),
        pytest.param(b"\x94\xa6commit\x00\x90\x91\xdd\xff\xff\xff\xff", id="a plan of 4 billion"),
        pytest.param(b"\x92\xa5abort\xdb\xff\xff\xff\xffabc", id="a reason of 4 GB"),
        pytest.param(b"\x92\xa5abort\xa2\xff\xfe", id="a reason that is no text"),
        pytest.param(b"\x92\xa2\xff\xfe\x00", id="a tag that is no text"),
        pytest.param(b"\xc7\xff\x00", id="an extension"),
    ],
)
def test_hostile_bytes_cost_neither_memory_nor_the_process(data: bytes) -> None:
    tracemalloc.start()
    try:
        for decode in DECODERS:
            with pytest.raises(CodecError):
                decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_fields_of_another_version_are_refused() -> None:
    with pytest.raises(CodecError):
        decode_to_worker(msgspec.msgpack.encode(["abort", "reason", "more"]))
    with pytest.raises(CodecError):
        decode_to_worker(msgspec.msgpack.encode(["abort"]))
    assert messages.PROTOCOL == 8
