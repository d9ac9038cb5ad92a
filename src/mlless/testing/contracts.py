"""The contracts of the ports as tests.

Subclass one for an adapter, and say how to open it::

    class TestMyStore(KeyValueStoreContract):
        @pytest.fixture
        def open_store(self, my_server):
            return lambda: MyStore(my_server, job="test")

Nothing here sleeps or counts on timing; a deadline is only there to end a test that has failed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Protocol

import msgspec
import pytest

from mlless.channels.ports import Hub, KeyValueStore, Link, ObjectStore
from mlless.errors import (
    CodecError,
    DeadlineExceeded,
    Disconnected,
    JobError,
    MissingObject,
    MissingUpdate,
)
from mlless.memory import MB
from mlless.messages import PROTOCOL, Abort, Commit, Failure, FromWorker, FunctionId, Hello, Plan
from mlless.runtimes.ports import Ended, Runtime
from mlless.testing.functions import Task

DEADLINE = 30.0  # seconds after which a test that waits has failed
SIZES = (0, 1, 2, 7, 4095, 4096, 4097, 65_536, 1_000_003)


def _sized(size: int, seed: int = 0) -> bytes:
    cycle = bytes((seed + n) % 251 for n in range(251))
    return (cycle * (size // 251 + 1))[:size]


class KeyValueStoreContract:
    """What every KeyValueStore holds to. ``open_store`` opens one more access to the same job's store."""

    @pytest.fixture
    def open_store(self) -> Callable[[], KeyValueStore]:
        """Return a function that opens the store of one job, empty at first."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: Callable[[], KeyValueStore]) -> KeyValueStore:
        """Return one access to the store."""
        return open_store()

    def test_values_of_any_size_come_back_in_the_order_of_the_keys(self, store: KeyValueStore) -> None:
        """Sizes around pages and buffers, in one round trip."""
        for size in SIZES:
            store.put(f"size/{size}", [_sized(size)])
        for order in (SIZES, SIZES[::-1], (7, 7, 0)):
            values = store.get([f"size/{size}" for size in order])
            assert [bytes(value) for value in values] == [_sized(size) for size in order]

    def test_a_value_is_the_concatenation_of_its_chunks(self, store: KeyValueStore) -> None:
        """Of bytes and memoryviews, empty ones among them."""
        store.put("chunks", [b"ab", memoryview(b"xcdx")[1:3], b"", memoryview(bytearray(b"ef")), b"g"])
        store.put("nothing", [])
        assert [bytes(value) for value in store.get(["chunks", "nothing"])] == [b"abcdefg", b""]

    def test_several_values_are_put_together(self, open_store: Callable[[], KeyValueStore]) -> None:
        """Of any size, in the place of others; nothing at all is allowed."""
        writer, reader = open_store(), open_store()
        keys = [f"size/{size}" for size in SIZES]
        for turn in range(2):
            writer.put_all({key: _sized(size, turn) for key, size in zip(keys, SIZES, strict=True)})
            found = [bytes(value) for value in reader.get(keys)]
            assert found == [_sized(size, turn) for size in SIZES]
        writer.put_all({key: memoryview(b"xax")[1:2] for key in keys})
        writer.put_all({})
        assert [bytes(value) for value in reader.get(keys)] == [b"a"] * len(keys)

    def test_what_one_puts_another_reads(self, open_store: Callable[[], KeyValueStore]) -> None:
        """As soon as ``put`` has returned."""
        writer, reader = open_store(), open_store()
        for n in range(20):
            writer.put("turn", [_sized(100 + n, n)])
            assert bytes(reader.get(["turn"])[0]) == _sized(100 + n, n)

    def test_keys_do_not_mix(self, store: KeyValueStore) -> None:
        """Keys that resemble one another are different keys."""
        keys = ["update/1/2.0", "update/1/2.1", "update/12.0", "update/1/2", "update", "update.1", "Update"]
        for key in keys:
            store.put(key, [key.encode()])
        assert [bytes(value) for value in store.get(keys)] == [key.encode() for key in keys]

    def test_a_missing_key_is_named(self, store: KeyValueStore) -> None:
        """The first one that is absent."""
        store.put("there", [b"x"])
        with pytest.raises(MissingUpdate, match="not/there"):
            store.get(["there", "not/there", "nor/this"])

    def test_no_keys_are_no_values(self, store: KeyValueStore) -> None:
        """Asking for nothing is allowed."""
        assert list(store.get([])) == []

    def test_a_value_that_is_held_survives_deletion_and_replacement(self, store: KeyValueStore) -> None:
        """What ``get`` returned stays as it was."""
        store.put("a", [_sized(10_000, 1)])
        store.put("b", [_sized(10_000, 2)])
        held = store.get(["a", "b"])
        store.put("a", [_sized(20_000, 3)])
        store.delete(["b"])
        assert [bytes(value) for value in held] == [_sized(10_000, 1), _sized(10_000, 2)]
        assert bytes(store.get(["a"])[0]) == _sized(20_000, 3)

    def test_deleted_keys_are_gone_and_absent_ones_passed_over(self, store: KeyValueStore) -> None:
        """The others stay."""
        for key in ("a", "b", "c"):
            store.put(key, [key.encode()])
        store.delete(["a", "absent", "b"])
        store.delete(["a"])
        store.delete([])
        assert bytes(store.get(["c"])[0]) == b"c"
        for key in ("a", "b"):
            with pytest.raises(MissingUpdate, match=key):
                store.get([key])

    def test_readers_see_a_whole_value_while_it_is_replaced(
        self, open_store: Callable[[], KeyValueStore]
    ) -> None:
        """Each value is of one byte repeated; a mixture or a stump would show."""
        writer, done = open_store(), threading.Event()
        writer.put("busy", [b"\0" * 50_000])

        def read() -> int:
            """Read until all is written; return how often."""
            store, rounds = open_store(), 0
            while not done.is_set() or not rounds:
                (value,) = store.get(["busy"])
                data = bytes(value)
                assert data == data[:1] * (50_000 + data[0])
                rounds += 1
            return rounds

        with ThreadPoolExecutor(3) as readers:
            reading = [readers.submit(read) for _ in range(3)]
            for n in range(200):
                writer.put("busy", [bytes([n]) * 25_000, bytes([n]) * (25_000 + n)])
            done.set()
            assert all(future.result(DEADLINE) for future in reading)

    def test_many_write_at_once(self, open_store: Callable[[], KeyValueStore]) -> None:
        """Keys of their own, as workers do."""

        def write(worker: int) -> None:
            """Write the updates of a worker."""
            store = open_store()
            for step in range(30):
                store.put(f"update/{step}/{worker}.0", [_sized(1000 + step, worker)])

        with ThreadPoolExecutor(4) as writers:
            list(writers.map(write, range(4), timeout=DEADLINE))
        keys = [(step, worker) for step in range(30) for worker in range(4)]
        values = open_store().get([f"update/{step}/{worker}.0" for step, worker in keys])
        for (step, worker), value in zip(keys, values, strict=True):
            assert bytes(value) == _sized(1000 + step, worker)

    def test_threads_share_a_store(self, store: KeyValueStore) -> None:
        """Each with keys of its own, and all with one that does not change."""
        store.put("shared", [_sized(100_000)])

        def put_and_get(n: int) -> None:
            """Write, read and delete values of one thread."""
            for turn in range(30):
                store.put(f"of/{n}", [_sized(1000 * turn, n)])
                own, shared = store.get([f"of/{n}", "shared"])
                assert bytes(own) == _sized(1000 * turn, n)
                assert bytes(shared) == _sized(100_000)
            store.renew([f"of/{n}"])
            store.delete([f"of/{n}"])

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(put_and_get, range(8), timeout=DEADLINE))

    def test_destroy_removes_everything_and_may_be_repeated(
        self, open_store: Callable[[], KeyValueStore]
    ) -> None:
        """Also what others of the job have put."""
        store, other = open_store(), open_store()
        store.put("a", [b"1"])
        other.put("b", [b"2"])
        store.destroy()
        store.destroy()
        for key in ("a", "b"):
            with pytest.raises(MissingUpdate, match=key):
                other.get([key])


class ObjectStoreContract:
    """What every ObjectStore holds to."""

    # Whether the server under test may serve parts of two objects while one replaces the other.
    replaces_in_parts: ClassVar[bool] = False

    @pytest.fixture
    def open_store(self) -> Callable[[], ObjectStore]:
        """Return a function that opens the same place, empty at first."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, open_store: Callable[[], ObjectStore]) -> ObjectStore:
        """Return one access to the store."""
        return open_store()

    def test_objects_of_any_size_come_back(self, store: ObjectStore) -> None:
        """From bytes and memoryviews."""
        for size in SIZES:
            store.put(f"some/folder/{size}.bin", _sized(size))
            assert store.get(f"some/folder/{size}.bin") == _sized(size)
        store.put("view", memoryview(b"xabcx")[1:4])
        assert store.get("view") == b"abc"

    def test_what_one_puts_another_reads_and_replaces(self, open_store: Callable[[], ObjectStore]) -> None:
        """The last one counts."""
        first, second = open_store(), open_store()
        first.put("a/b", b"one")
        assert second.get("a/b") == b"one"
        second.put("a/b", b"another")
        assert first.get("a/b") == b"another"

    def test_a_missing_object_is_named(self, store: ObjectStore) -> None:
        """By its path, whether anything else is there or not."""
        for _ in range(2):
            with pytest.raises(MissingObject, match="not/there"):
                store.get("not/there")
            store.put("not/here", b"x")

    def test_deleted_objects_are_gone_and_absent_ones_passed_over(self, store: ObjectStore) -> None:
        """The others stay."""
        for path in ("a", "b/c", "b/d"):
            store.put(path, path.encode())
        store.delete(["a", "absent", "b/absent", "b/c"])
        store.delete(["a"])
        store.delete([])
        assert store.get("b/d") == b"b/d"
        for path in ("a", "b/c"):
            with pytest.raises(MissingObject, match=path):
                store.get(path)

    def test_the_names_at_the_top_are_told(self, store: ObjectStore) -> None:
        """Of objects, and of what lies below a common name once."""
        assert store.names() == set()
        for path in ("a", "b/c", "b/d/e", "f.g"):
            store.put(path, b"")
        assert store.names() == {"a", "b", "f.g"}

    def test_threads_share_a_store(self, store: ObjectStore) -> None:
        """Each with objects of its own."""

        def put_and_get(n: int) -> None:
            """Write and read objects of one thread."""
            for size in range(5):
                store.put(f"of/{n}/{size}", _sized(1000 * size, n))
                assert store.get(f"of/{n}/{size}") == _sized(1000 * size, n)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(put_and_get, range(8), timeout=DEADLINE))

    def test_readers_see_a_whole_object_while_it_is_replaced(
        self, open_store: Callable[[], ObjectStore]
    ) -> None:
        """Each object is of one byte repeated; a mixture or a stump would show."""
        writer, done = open_store(), threading.Event()
        writer.put("busy", b"\0" * 50_000)

        def read() -> int:
            """Read until all is written; return how often."""
            store, rounds = open_store(), 0
            while not done.is_set() or not rounds:
                data = store.get("busy")
                if not self.replaces_in_parts:
                    assert data == data[:1] * len(data), "a mixture"
                    assert len(data) == 50_000 + data[0], "a stump"
                rounds += 1
            return rounds

        with ThreadPoolExecutor(3) as readers:
            reading = [readers.submit(read) for _ in range(3)]
            for n in range(100):
                writer.put("busy", bytes([n]) * (50_000 + n))
            done.set()
            assert all(future.result(DEADLINE) for future in reading)


class Bus(Protocol):
    """An adapter's bus of one job, as the contract uses it."""

    @property
    def hub(self) -> Hub:
        """The supervisor's end."""
        ...

    def link(self, worker: int, generation: int) -> Link:
        """Open the end of a function, which has been admitted."""
        ...

    def send_raw(self, link: Link, data: bytes) -> None:
        """Send bytes as if they were a message of this link to the supervisor."""
        ...


def _hello(worker: int, text: str = "0", *, generation: int = 0) -> Hello:
    return Hello(worker, generation, pid=1, protocol=PROTOCOL, version=text)


def _commit(step: int, members: int = 3) -> Commit:
    return Commit(step=step, published=(), plans=(Plan(step + 1, tuple(range(members)), 0, 9, 1),))


def _receive(hub: Hub) -> object:
    message = hub.receive(DEADLINE)
    assert message is not None, "no message came"
    return message


def _send(link: Link, messages: Sequence[FromWorker]) -> None:
    for message in messages:
        link.send(message)


class BusContract:
    """What every message bus holds to: a Hub and its Links."""

    @pytest.fixture
    def bus(self) -> Iterator[Bus]:
        """Yield a bus whose hub is open, and close all of it afterwards."""
        raise NotImplementedError

    def joined(self, bus: Bus, worker: int, generation: int = 0) -> Link:
        """Return the link of a function that was admitted and has said hello."""
        bus.hub.admit([(worker, generation)])
        link = bus.link(worker, generation)
        hello = _hello(worker, generation=generation)
        link.send(hello)
        assert _receive(bus.hub) == hello
        return link

    def test_messages_arrive_in_the_order_a_worker_sent_them(self, bus: Bus) -> None:
        """Small ones and large ones."""
        link = self.joined(bus, 0)
        sent = [_hello(0, text="x" * (n * n)) for n in range(60)]
        with ThreadPoolExecutor(1) as worker:
            sending = worker.submit(_send, link, sent)
            assert [_receive(bus.hub) for _ in sent] == sent
            sending.result(DEADLINE)

    def test_many_workers_share_one_queue_and_keep_their_own_order(self, bus: Bus) -> None:
        """Whatever the order among them."""
        links = [self.joined(bus, worker) for worker in range(5)]
        with ThreadPoolExecutor(5) as senders:
            sending = [
                senders.submit(_send, links[worker], [_hello(worker, text=str(n)) for n in range(40)])
                for worker in range(5)
            ]
            received = [_receive(bus.hub) for _ in range(5 * 40)]
            for future in sending:
                future.result(DEADLINE)
        for worker in range(5):
            own = [m.version for m in received if isinstance(m, Hello) and m.worker == worker]
            assert own == [str(n) for n in range(40)]

    def test_a_broadcast_reaches_those_it_names_in_order(self, bus: Bus) -> None:
        """And nobody else; functions that are not there are passed over."""
        links = [self.joined(bus, worker) for worker in range(3)]
        bus.hub.broadcast(_commit(1), [(0, 0), (2, 0), (77, 0), (1, 1), (10, 0)])
        bus.hub.broadcast(_commit(2), [(0, 0), (1, 0), (2, 0)])
        assert [links[0].receive(DEADLINE), links[0].receive(DEADLINE)] == [_commit(1), _commit(2)]
        assert links[1].receive(DEADLINE) == _commit(2)
        assert [links[2].receive(DEADLINE), links[2].receive(DEADLINE)] == [_commit(1), _commit(2)]

    def test_two_generations_of_a_worker_are_two_functions(self, bus: Bus) -> None:
        """At work at the same time, each hears its own messages, and the hub hears both."""
        old, other = self.joined(bus, 0), self.joined(bus, 1)
        bus.hub.broadcast(_commit(1), [(0, 0), (1, 0)])
        new = self.joined(bus, 0, 1)
        bus.hub.broadcast(_commit(2), [(0, 1), (1, 0)])
        bus.hub.broadcast(_commit(3), [(0, 0)])
        bus.hub.broadcast(_commit(4), [(0, 0), (0, 1), (1, 0)])
        assert [old.receive(DEADLINE) for _ in range(3)] == [_commit(1), _commit(3), _commit(4)]
        assert [new.receive(DEADLINE) for _ in range(2)] == [_commit(2), _commit(4)]
        assert [other.receive(DEADLINE) for _ in range(3)] == [_commit(1), _commit(2), _commit(4)]
        for link, generation in ((old, 0), (new, 1), (old, 0)):
            link.send(_hello(0, "both", generation=generation))
            assert _receive(bus.hub) == _hello(0, "both", generation=generation)
        for link in (old, new, other):
            with pytest.raises(DeadlineExceeded):
                link.receive(0.0)

    def test_a_new_generation_outlives_the_old_one(self, bus: Bus) -> None:
        """Whatever was sent to the old one when it was gone, or before the new one was there."""
        old = self.joined(bus, 0)
        old.close()
        for step in range(5):
            bus.hub.broadcast(_commit(step), [(0, 0)])
        new = self.joined(bus, 0, 1)
        bus.hub.broadcast(_commit(5), [(0, 0)])
        bus.hub.broadcast(_commit(6), [(0, 1)])
        assert new.receive(DEADLINE) == _commit(6)

    def test_functions_are_admitted_one_after_the_other(self, bus: Bus) -> None:
        """Also more than once, and while others are at work, which miss nothing of what is sent meanwhile."""
        first = self.joined(bus, 0)
        for generation in range(1, 4):
            bus.hub.admit([(worker, generation) for worker in range(3)])
            bus.hub.broadcast(_commit(generation), [(0, 0)])
            bus.hub.admit([(1, generation)])
            link = self.joined(bus, 1, generation)
            bus.hub.broadcast(_commit(10 + generation), [(0, 0), (1, generation)])
            assert link.receive(DEADLINE) == _commit(10 + generation)
        for generation in range(1, 4):
            assert [first.receive(DEADLINE) for _ in range(2)] == [
                _commit(generation),
                _commit(10 + generation),
            ]

    def test_one_who_comes_late_hears_what_is_sent_from_then_on(self, bus: Bus) -> None:
        """It was admitted long before, and much has been said to others."""
        bus.hub.admit([(0, 0), (1, 0)])
        for step in range(20):
            bus.hub.broadcast(_commit(step), [(1, 0), (0, 1)])
        late = self.joined(bus, 0)
        bus.hub.broadcast(_commit(20), [(0, 0)])
        assert late.receive(DEADLINE) == _commit(20)

    def test_a_wait_without_a_message_ends_at_its_deadline(self, bus: Bus) -> None:
        """With None at the hub and DeadlineExceeded at a link; the link goes on."""
        link = self.joined(bus, 0)
        assert bus.hub.receive(0.0) is None
        assert bus.hub.receive(0.01) is None
        with pytest.raises(DeadlineExceeded):
            link.receive(0.01)
        with pytest.raises(DeadlineExceeded):
            link.receive(0.0)
        bus.hub.broadcast(Abort("late"), [(0, 0)])
        assert link.receive(DEADLINE) == Abort("late")

    def test_a_link_learns_that_the_hub_is_gone(self, bus: Bus) -> None:
        """After the messages that were sent before."""
        link = self.joined(bus, 0)
        bus.hub.broadcast(_commit(1), [(0, 0)])
        bus.hub.close()
        assert link.receive(DEADLINE) == _commit(1)
        with pytest.raises(Disconnected):
            link.receive(DEADLINE)
        with pytest.raises(Disconnected):
            _send(link, [_hello(0, text="x" * 1000)] * 1000)

    def test_a_worker_that_goes_does_not_disturb_the_others(self, bus: Bus) -> None:
        """What it said before is heard, and a broadcast passes it over."""
        gone, stays = self.joined(bus, 0), self.joined(bus, 1)
        last = Failure(worker=0, generation=0, step=3, error="e", traceback="t", exit_code=1)
        gone.send(last)
        gone.close()
        assert _receive(bus.hub) == last
        assert bus.hub.receive(0.01) is None
        for step in range(3):
            bus.hub.broadcast(_commit(step), [(0, 0), (1, 0)])
            assert stays.receive(DEADLINE) == _commit(step)
        stays.send(_hello(1, "still here"))
        assert _receive(bus.hub) == _hello(1, "still here")

    @pytest.mark.parametrize("data", [b"", b"\x00", b"garbage", b"\xff" * 1000, b"\x91" * 100_000])
    def test_garbage_is_an_error_that_names_its_sender(self, bus: Bus, data: bytes) -> None:
        """The hub goes on with the others."""
        bad, good = self.joined(bus, 3), self.joined(bus, 4)
        bus.send_raw(bad, data)
        with pytest.raises(CodecError, match="worker 3"):
            bus.hub.receive(DEADLINE)
        good.send(_hello(4, "unharmed"))
        assert _receive(bus.hub) == _hello(4, "unharmed")

    @pytest.mark.parametrize("other", [(4, 2), (3, 1), (3, 3)])
    def test_a_message_in_anothers_name_is_an_error(self, bus: Bus, other: FunctionId) -> None:
        """It names the link's own worker. Another generation is another one."""
        link = self.joined(bus, 3, 2)
        link.send(_hello(other[0], generation=other[1]))
        with pytest.raises(CodecError, match=f"worker 3.*generation 2, found worker {other[0]} of "):
            bus.hub.receive(DEADLINE)

    def test_a_slow_reader_never_blocks_a_broadcast(self, bus: Bus) -> None:
        """Others get theirs at once; it gets all of it, in order, once it reads."""
        slow, quick = self.joined(bus, 0), self.joined(bus, 1)
        sent = [_commit(step, members=5000) for step in range(100)]
        for commit in sent:
            bus.hub.broadcast(commit, [(0, 0), (1, 0)])
            assert quick.receive(DEADLINE) == commit
        done = threading.Event()

        def serve() -> None:
            """Receive until the test is over."""
            while not done.is_set():
                bus.hub.receive(0.01)

        with ThreadPoolExecutor(1) as hub:
            serving = hub.submit(serve)
            try:
                assert [slow.receive(DEADLINE) for _ in sent] == sent
            finally:
                done.set()
            serving.result(DEADLINE)

    def test_one_wait_of_the_hub_serves_a_slow_reader_to_the_end(self, bus: Bus) -> None:
        """A supervisor that waits for the slow one's report keeps on sending what it needs to report."""
        slow = self.joined(bus, 0)
        sent = [_commit(step, members=5000) for step in range(100)]
        for commit in sent:
            bus.hub.broadcast(commit, [(0, 0)])
        with ThreadPoolExecutor(1) as hub:
            waiting = hub.submit(bus.hub.receive, DEADLINE)
            try:
                assert [slow.receive(2.0) for _ in sent] == sent
            finally:
                slow.send(_hello(0, "done"))
            assert waiting.result(DEADLINE) == _hello(0, "done")

    def test_both_ends_may_be_closed_more_than_once(self, bus: Bus) -> None:
        """In any order."""
        bus.hub.admit([])
        link = self.joined(bus, 0)
        link.close()
        link.close()
        bus.hub.close()
        bus.hub.close()


_FUNCTIONS = "mlless.testing.functions"
_LONG = 120.0  # seconds after which a runtime that starts many functions on a busy machine has failed


class OpenRuntime(Protocol):
    """Opens a runtime for an entry, whose functions end after so many seconds if that is set."""

    def __call__(self, entry: str, *, time_limit: int | None = None) -> Runtime:
        """Open it."""
        ...


class RuntimeContract:
    """What every Runtime holds to that starts functions of this machine.

    ``ends_one_by_one`` says whether it can end some of them.
    """

    ends_one_by_one: ClassVar[bool] = True

    @pytest.fixture
    def open_runtime(self) -> Iterator[OpenRuntime]:
        """Yield a function that opens a runtime for an entry, and stop all of them afterwards."""
        raise NotImplementedError

    def test_all_functions_run_at_the_same_time(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """More than there are cores; each waits for all the others. How long each ran is told."""
        count = min((os.cpu_count() or 1) + 3, 16)
        runtime = open_runtime(f"{_FUNCTIONS}:meet")
        before = time.monotonic()
        runtime.start({(n, 0): _task(tmp_path, n, all=count) for n in range(count)})
        ended = _all_ended(runtime, count)
        assert sorted((one.worker, one.generation, one.code) for one in ended) == [
            (n, 0, 0) for n in range(count)
        ]
        assert all(one.cpu_seconds >= 0 for one in ended)
        elapsed = time.monotonic() - before
        assert all(one.seconds is not None and 0 <= one.seconds <= elapsed for one in ended)
        assert runtime.ended() == []
        assert runtime.stop(0.0) == []

    def test_the_payload_arrives_unchanged(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """Quotes, line ends and other alphabets, small and large."""
        texts = ["", "\"quoted\" 'twice' \\ \n \r \t \x7f", "žluťoučký 🦙 ¥", "x" * 50_000]
        payloads = [_task(tmp_path, n, text=text) for n, text in enumerate(texts)]
        runtime = open_runtime(f"{_FUNCTIONS}:meet")
        runtime.start({(n, 7): payload for n, payload in enumerate(payloads)})
        assert {one.code for one in _all_ended(runtime, len(texts))} == {0}
        assert [(tmp_path / f"{n}.told").read_bytes() for n in range(len(texts))] == payloads

    def test_more_can_be_started_while_others_run(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """A worker's next generation meets the others; until then no one has ended."""
        runtime = open_runtime(f"{_FUNCTIONS}:wait")
        runtime.start({(0, 0): _task(tmp_path, 0), (1, 0): _task(tmp_path, 1)})
        _appears(tmp_path / "0.pid", tmp_path / "1.pid")
        runtime.start({(1, 1): _task(tmp_path, 2)})
        _appears(tmp_path / "2.pid")
        assert runtime.ended() == []
        (tmp_path / "go").touch()
        ended = _all_ended(runtime, 3)
        assert sorted((one.worker, one.generation, one.code) for one in ended) == [
            (0, 0, 0),
            (1, 0, 0),
            (1, 1, 0),
        ]

    def test_a_worker_is_started_anew_after_its_end(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """Generation after generation, beside one that has run all the time."""
        runtime = open_runtime(f"{_FUNCTIONS}:wait")
        runtime.start({(0, 0): _task(tmp_path, 10), (1, 0): _task(tmp_path, 0)})
        for generation in range(3):
            (process,) = _appears(tmp_path / f"{generation}.pid")
            os.kill(process, signal.SIGKILL)
            (killed,) = _all_ended(runtime, 1)
            assert (killed.worker, killed.generation) == (1, generation)
            runtime.start({(1, generation + 1): _task(tmp_path, generation + 1)})
        (tmp_path / "go").touch()
        ended = sorted((one.worker, one.generation, one.code) for one in _all_ended(runtime, 2))
        assert ended == [(0, 0, 0), (1, 3, 0)]

    def test_end_ends_those_it_is_told_to(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """One that is stopped too, if the runtime can; no other, and no harm in one that is not there."""
        runtime = open_runtime(f"{_FUNCTIONS}:wait")
        functions = [(0, 0), (0, 1), (1, 0)]
        runtime.start({who: _task(tmp_path, n) for n, who in enumerate(functions)})
        stopped, *_ = _appears(*(tmp_path / f"{n}.pid" for n in range(3)))
        os.kill(stopped, signal.SIGSTOP)
        runtime.end([(0, 0), (0, 2), (7, 0)])
        if self.ends_one_by_one:
            (killed,) = _all_ended(runtime, 1)
            assert (killed.worker, killed.generation) == functions.pop(0)
            assert "SIGKILL" in killed.describe()
        else:
            os.kill(stopped, signal.SIGCONT)
        (tmp_path / "go").touch()
        ended = _all_ended(runtime, len(functions))
        assert sorted((one.worker, one.generation, one.code) for one in ended) == [
            (*who, 0) for who in functions
        ]
        runtime.end([(0, 0), (1, 0)])  # all are over
        assert runtime.stop(_LONG) == []
        runtime.end([(0, 0)])

    @pytest.mark.parametrize(("entry", "code"), [("fail", 4), ("crash", 1)])
    def test_a_function_that_raises_ends_with_its_code(
        self, open_runtime: OpenRuntime, tmp_path: Path, entry: str, code: int
    ) -> None:
        """The one an error of ours has, otherwise 1."""
        runtime = open_runtime(f"{_FUNCTIONS}:{entry}")
        runtime.start({(3, 1): _task(tmp_path, 3)})
        (ended,) = _all_ended(runtime, 1)
        assert (ended.worker, ended.generation, ended.code) == (3, 1, code)
        assert ended.describe()

    def test_a_killed_function_is_told(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """With the signal; the others go on."""
        runtime = open_runtime(f"{_FUNCTIONS}:wait")
        runtime.start({(0, 0): _task(tmp_path, 0), (1, 0): _task(tmp_path, 1)})
        os.kill(_appears(tmp_path / "0.pid", tmp_path / "1.pid")[0], signal.SIGKILL)
        (killed,) = _all_ended(runtime, 1)
        assert (killed.worker, killed.code == 0) == (0, False)
        assert "SIGKILL" in killed.describe()
        (tmp_path / "go").touch()
        assert [(one.worker, one.code) for one in _all_ended(runtime, 1)] == [(1, 0)]

    def test_a_function_is_ended_at_its_time_limit(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """And that is told; others of the same runtime have had their own time since their start."""
        assert open_runtime(f"{_FUNCTIONS}:wait").time_limit is None
        runtime = open_runtime(f"{_FUNCTIONS}:wait", time_limit=2)
        assert runtime.time_limit == 2
        runtime.start({(0, 0): _task(tmp_path, 0)})
        (ended,) = _all_ended(runtime, 1)
        assert (ended.worker, ended.generation, ended.code == 0) == (0, 0, False)
        assert re.search("time .*2 s", ended.cause)
        runtime.start({(0, 1): _task(tmp_path, 1)})
        (tmp_path / "go").touch()
        assert [(one.generation, one.code) for one in _all_ended(runtime, 1)] == [(1, 0)]

    def test_the_peak_of_memory_is_told(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """As a function itself reads it, and after all is freed again."""
        (tmp_path / "go").touch()
        runtime = open_runtime(f"{_FUNCTIONS}:swell")
        runtime.start({(n, 0): _task(tmp_path, n, all=100 * n) for n in range(2)})
        peaks = {one.worker: one.peak or 0 for one in _all_ended(runtime, 2)}
        for worker, read in enumerate(_appears(tmp_path / "0.peak", tmp_path / "1.peak")):
            assert abs(peaks[worker] - read) < 4 * MB
        assert abs(peaks[1] - peaks[0] - 100 * MB) < 20 * MB

    @pytest.mark.parametrize("entry", ["mlless.testing.nowhere:main", f"{_FUNCTIONS}:nothing"])
    def test_an_entry_that_cannot_be_imported_is_told(
        self, open_runtime: OpenRuntime, tmp_path: Path, entry: str
    ) -> None:
        """Either as an error or as the end of every function."""
        with contextlib.suppress(JobError):
            runtime = open_runtime(entry)
            runtime.start({(n, 0): _task(tmp_path, n) for n in range(2)})
            ended = _all_ended(runtime, 2)
            assert all(one.code == 1 and "Error" in one.cause for one in ended)

    def test_stop_waits_for_those_who_end(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """And returns them."""
        runtime = open_runtime(f"{_FUNCTIONS}:wait")
        runtime.start({(n, 0): _task(tmp_path, n) for n in range(2)})
        _appears(tmp_path / "0.pid", tmp_path / "1.pid")
        (tmp_path / "go").touch()
        assert sorted((one.worker, one.code) for one in runtime.stop(_LONG)) == [(0, 0), (1, 0)]
        assert runtime.stop(_LONG) == []

    def test_stop_ends_what_runs(self, open_runtime: OpenRuntime, tmp_path: Path) -> None:
        """At once, without the grace, and may be called again."""
        runtime = open_runtime(f"{_FUNCTIONS}:wait")
        runtime.start({(n, 0): _task(tmp_path, n) for n in range(2)})
        processes = _appears(tmp_path / "0.pid", tmp_path / "1.pid")
        runtime.stop(0.0)
        runtime.stop(0.0)
        _until(lambda: not any(map(_alive, processes)), "the functions' processes end")

    def test_a_runtime_that_started_nothing_can_be_stopped(self, open_runtime: OpenRuntime) -> None:
        """And says nothing."""
        runtime = open_runtime(f"{_FUNCTIONS}:meet")
        assert runtime.ended() == []
        assert runtime.stop(_LONG) == []


def _task(folder: Path, name: int, all: int = 1, text: str = "") -> bytes:
    return msgspec.json.encode(Task(str(folder), str(name), all, text))


def _all_ended(runtime: Runtime, count: int) -> list[Ended]:
    """Return the next ``count`` functions to end, each of which may come once."""
    ended: list[Ended] = []

    def enough() -> bool:
        """Return whether so many have ended."""
        ended.extend(runtime.ended())
        return len(ended) >= count

    _until(enough, f"{count} functions end")
    seen: set[FunctionId] = {(one.worker, one.generation) for one in ended}
    assert len(ended) == len(seen) == count
    return ended


def _appears(*paths: Path) -> list[int]:
    """Return the numbers in the files, once all are there."""
    _until(lambda: all(path.exists() for path in paths), "the functions start")
    return [int(path.read_text()) for path in paths]


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LONG
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {_LONG} s"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Return whether a process is there; one that has ended may still wait to be noticed."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    try:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
