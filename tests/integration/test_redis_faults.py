"""What is particular to Redis: its errors, lost connections, restarts, and what is left on the server."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from integration.jobs import alive, eventually
from servers.need import free_port
from servers.proxy import Proxy
from servers.redis import PASSWORD, QUOTED, Server, running

from mlless import train
from mlless.artifact import MODEL
from mlless.channels import redis_bus, redis_client, redis_routing, redis_store
from mlless.channels.redis_bus import RedisHub, RedisLink
from mlless.channels.redis_health import EVICTS_CURE
from mlless.channels.redis_store import RedisStore
from mlless.data.dataset import Dataset
from mlless.errors import (
    ChannelError,
    CodecError,
    DeadlineExceeded,
    Disconnected,
    MissingUpdate,
    MLLessError,
    UsageError,
)
from mlless.messages import PROTOCOL, Abort, Commit, Hello, encode
from mlless.records import StepRecord

DEADLINE = 30.0
EXPIRY = 600.0
PATIENCE = 20.0
IMPATIENT = 1.0


def hello(worker: int = 0, text: str = "0") -> Hello:
    return Hello(worker=worker, generation=0, pid=1, protocol=PROTOCOL, version=text)


def commit(step: int) -> Commit:
    return Commit(step=step, published=(), plans=())


@pytest.fixture
def job() -> str:
    return f"mlless-{secrets.token_hex(6)}"


@pytest.fixture
def server(redis_server: Server) -> Server:
    return redis_server


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def store(server: Server, job: str) -> Iterator[RedisStore]:
    store = RedisStore((server.url,), job, EXPIRY, PATIENCE)
    yield store
    store.destroy()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of more than 1,000 bytes are large."""
    monkeypatch.setattr(redis_store, "_PART", 1000)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that were never there are given up soon, and signs of life come often."""
    monkeypatch.setattr(redis_client, "_OPENING_PATIENCE", 0.1)
    monkeypatch.setattr(redis_client, "_LONGEST_BLOCK", 0.1)
    monkeypatch.setattr(redis_bus, "_RENEWAL", 0.1)
    monkeypatch.setattr(redis_bus, "_LOOK", 0.1)


@pytest.fixture
def bus(server: Server, job: str) -> Iterator[tuple[RedisHub, RedisLink]]:
    with meeting(server, job) as (hub, link):
        yield hub, link


@contextmanager
def meeting(server: Server, job: str, patience: float = PATIENCE) -> Iterator[tuple[RedisHub, RedisLink]]:
    """A hub and the link of worker 0, which has been heard."""
    hub = RedisHub(server.url, job, EXPIRY, patience)
    try:
        link = RedisLink(server.url, job, 0, 0, patience)
        link.send(hello())
        assert hub.receive(DEADLINE) == hello()
        yield hub, link
        link.close()
    finally:
        hub.destroy()


def keys_of(client: redis.Redis, job: str) -> list[bytes]:
    return sorted(client.scan_iter(match=f"{job}*", count=1000))


def calls(client: redis.Redis) -> dict[str, int]:
    """How often the server has carried out which command."""
    stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}


class TestStore:
    def test_the_updates_of_all_peers_are_read_in_one_round_trip(
        self, client: redis.Redis, store: RedisStore
    ) -> None:
        keys = [f"update/7/{worker}.0" for worker in range(23)]
        for key in keys:
            store.put(key, [key.encode(), bytes(10_000)])
        before = calls(client)
        store.get(keys)
        after = calls(client)
        assert {name: n - before.get(name, 0) for name, n in after.items() if n != before.get(name, 0)} == {
            "mget": 1,
            "info": 1,
        }

    def test_large_values_come_back(self, store: RedisStore) -> None:
        for size in ((1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9_500_000):
            value = bytes(range(250)) * (size // 250 + 1)
            store.put("large", [value[:1000], memoryview(value)[1000:size]])
            assert bytes(store.get(["large"])[0]) == value[:size]

    @pytest.mark.usefixtures("small_parts")
    def test_parts_go_with_their_value(self, client: redis.Redis, store: RedisStore, job: str) -> None:
        for size in (5000, 3001, 10, 2000):
            store.put("large", [bytes(size)])
            parts = -(-size // 1000) if size > 1000 else 0
            assert len(keys_of(client, job)) == parts + 1
        store.delete(["large", "absent"])
        assert keys_of(client, job) == []

    @pytest.mark.usefixtures("small_parts")
    def test_a_large_value_is_whole_while_it_is_replaced(self, server: Server, job: str) -> None:
        """By other large ones and by small ones."""
        writer = RedisStore((server.url,), job, EXPIRY, PATIENCE)
        writer.put("busy", [bytes(20)])
        done = threading.Event()

        def read() -> None:
            reader = RedisStore((server.url,), job, EXPIRY, PATIENCE)
            while not done.is_set():
                data = bytes(reader.get(["busy"])[0])
                assert data == data[:1] * (20_000 if data[0] % 3 else 20)

        with ThreadPoolExecutor(2) as readers:
            reading = [readers.submit(read) for _ in range(2)]
            for n in range(100):
                writer.put("busy", [bytes([n]) * (20_000 if n % 3 else 20)])
            done.set()
            for future in reading:
                future.result(DEADLINE)
        writer.destroy()

    @pytest.mark.usefixtures("small_parts")
    def test_every_key_expires_and_can_be_kept(
        self, client: redis.Redis, store: RedisStore, job: str
    ) -> None:
        store.put("small", [b"x"])
        store.put("large", [bytes(5000)])
        names = keys_of(client, job)
        assert len(names) == 7
        for name in names:
            assert 0 < client.pttl(name) <= EXPIRY * 1000
            client.pexpire(name, 100_000)
        store.renew(["small", "large", "absent"])
        assert all(client.pttl(name) > 100_000 for name in names)

    @pytest.mark.usefixtures("small_parts")
    def test_what_has_expired_is_missing_and_says_why(
        self, client: redis.Redis, store: RedisStore, job: str
    ) -> None:
        store.put("update/3/1.0", [b"x"])
        client.delete(f"{job}:update/3/1.0")
        with pytest.raises(MissingUpdate, match=r"update/3/1\.0: not in the store.*expired.*noeviction"):
            store.get(["update/3/1.0"])
        store.put("best", [bytes(5000)])
        client.delete(next(name for name in keys_of(client, job) if name.endswith(b".3")))
        with pytest.raises(MissingUpdate, match="best"):
            store.get(["best"])

    @pytest.mark.parametrize("job", ["mlless-[a-c]*?\\", "mlless-a"])
    def test_destroying_a_job_touches_no_other_key(self, own_redis_server: Server, job: str) -> None:
        client = own_redis_server.client()
        others = ["mlless-a", "mlless-ab:x", "mlless-b\\:x", "a", "mlless-[a-c]:x", "mlless-a|x"]
        for name in others:
            client.set(name, 1)
        store = RedisStore((own_redis_server.url,), job, EXPIRY, PATIENCE)
        store.put("one", [b"1"])
        store.put("two", [bytes(3 << 20)])
        assert len(keys_of(client, "")) == len(others) + 5
        store.destroy()
        assert keys_of(client, "") == sorted(name.encode() for name in others)
        client.close()

    def test_random_values_end_in_our_errors(self, client: redis.Redis, store: RedisStore, job: str) -> None:
        """Nothing is taken for a value, unless it ends as one."""
        chance = random.Random(0)
        for n in range(300):
            data = chance.randbytes(chance.randrange(40))
            if n % 2:
                data = chance.randbytes(16 if n % 4 == 1 else 9) + bytes(0 if n % 4 == 1 else 7) + b"\1"
            client.set(f"{job}:key", data, px=60_000)
            for act in (store.get, store.renew, store.delete):
                try:
                    found = act(["key"])
                except (CodecError, MissingUpdate) as error:
                    assert "key" in str(error)  # noqa: PT017
                else:
                    assert found is None or (data[-1:] == b"\0" and bytes(found[0]) == data[:-1])
            client.delete(f"{job}:key")
        client.lpush(f"{job}:key", "a list")
        with pytest.raises(MissingUpdate):  # as the server says of values that are none
            store.get(["key"])
        with pytest.raises(ChannelError, match="WRONGTYPE"):
            store.delete(["key"])

    @pytest.mark.usefixtures("small_parts")
    def test_parts_of_the_wrong_size_are_noticed(
        self, client: redis.Redis, store: RedisStore, job: str
    ) -> None:
        store.put("large", [bytes(5000)])
        client.set(next(name for name in keys_of(client, job) if name.endswith(b".3")), b"x")
        with pytest.raises(CodecError, match="large"):
            store.get(["large"])


class TestLostConnections:
    def test_nothing_is_lost_or_doubled(self, server: Server, client: redis.Redis, job: str) -> None:
        """All connections are cut again and again while messages and values go to and fro."""
        steps = 150

        def work() -> list[object]:
            link = RedisLink(server.url, job, 0, 0, PATIENCE)
            store = RedisStore((server.url,), job, EXPIRY, PATIENCE)
            received: list[object] = []
            link.send(hello())
            for step in range(steps):
                store.put(f"update/{step}", [step.to_bytes(4, "big")])
                link.send(hello(text=str(step)))
                received.append(link.receive(DEADLINE))
                store.delete([f"update/{step - 1}"])
            link.close()
            return received

        hub = RedisHub(server.url, job, EXPIRY, PATIENCE)
        store = RedisStore((server.url,), job, EXPIRY, PATIENCE)
        with ThreadPoolExecutor(1) as worker:
            working = worker.submit(work)
            assert hub.receive(DEADLINE) == hello()
            for step in range(steps):
                if step % 3 == 0:
                    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                assert hub.receive(DEADLINE) == hello(text=str(step))
                if step % 3 == 1:
                    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                assert bytes(store.get([f"update/{step}"])[0]) == step.to_bytes(4, "big")
                hub.broadcast(commit(step), [(0, 0)])
            assert working.result(DEADLINE) == [commit(step) for step in range(steps)]
        assert hub.receive(0.0) is None
        hub.destroy()
        store.destroy()
        assert keys_of(client, job) == []

    def test_a_large_value_put_twice_is_there(
        self, store: RedisStore, small_parts: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one is whose name was set, and the answer lost."""
        each = RedisStore._each
        monkeypatch.setattr(
            RedisStore, "_each", lambda self, commands: (each(self, commands), each(self, commands))[1]
        )
        store.put("large", [bytes(range(256)) * 16])
        assert bytes(store.get(["large"])[0]) == bytes(range(256)) * 16

    def test_a_message_sent_twice_is_received_once(
        self, client: redis.Redis, bus: tuple[RedisHub, RedisLink], job: str
    ) -> None:
        """As one is whose answer was lost."""
        hub, link = bus
        link.send(hello(text="once"))
        ((_, fields),) = client.xrange(hub._keys.up, min="-", max="+")[-1:]
        client.xadd(hub._keys.up, fields)
        link.send(hello(text="then"))
        assert [hub.receive(DEADLINE), hub.receive(DEADLINE)] == [hello(text="once"), hello(text="then")]
        hub.broadcast(commit(1), [(0, 0)])
        ((_, fields),) = client.xrevrange(hub._keys.down, count=1)
        client.xadd(hub._keys.down, fields)
        hub.broadcast(commit(2), [(0, 0)])
        assert [link.receive(DEADLINE), link.receive(DEADLINE)] == [commit(1), commit(2)]

    def test_an_interrupted_wait_leaves_the_bus_in_order(self, bus: tuple[RedisHub, RedisLink]) -> None:
        hub, link = bus

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 1.0)
            with pytest.raises(KeyboardInterrupt):
                hub.receive(DEADLINE)
        finally:
            signal.signal(signal.SIGALRM, before)
        hub.broadcast(Abort("interrupted"), [(0, 0)])
        assert link.receive(DEADLINE) == Abort("interrupted")
        link.send(hello(text="last"))
        assert hub.receive(DEADLINE) == hello(text="last")

    @pytest.mark.usefixtures("impatient")
    def test_a_server_that_hangs_is_an_error(self, own_redis_server: Server, job: str) -> None:
        store = RedisStore((own_redis_server.url + "?socket_timeout=2",), job, EXPIRY, IMPATIENT)
        os.kill(own_redis_server.pid, signal.SIGSTOP)
        with pytest.raises(ChannelError, match="does not answer"):
            store.put("key", [b"x"])
        os.kill(own_redis_server.pid, signal.SIGCONT)

    @pytest.mark.usefixtures("impatient")
    def test_a_server_that_is_gone_is_an_error_and_no_hindrance_to_the_end(
        self, own_redis_server: Server, job: str
    ) -> None:
        store = RedisStore((own_redis_server.url,), job, EXPIRY, IMPATIENT)
        with meeting(own_redis_server, job, IMPATIENT) as (hub, link):
            own_redis_server.stop()
            with pytest.raises(ChannelError, match="cannot be reached"):
                store.put("key", [b"x"])
            with pytest.raises(ChannelError, match="cannot be reached"):
                hub.receive(DEADLINE)
            with pytest.raises(Disconnected, match="cannot be reached"):
                link.receive(DEADLINE)
            with pytest.raises(Disconnected, match="cannot be reached"):
                link.send(hello())
            hub.destroy()
            hub.destroy()
            store.destroy()
            store.destroy()


class Absence:
    """How a server goes away and comes back with its data. ``url`` leads to it."""

    def __init__(self, server: Server) -> None:
        self.server, self.url = server, f"{server.url}?socket_timeout=0.5"

    def go(self) -> None:
        raise NotImplementedError

    def come_back(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Stopped(Absence):
    def go(self) -> None:
        os.kill(self.server.pid, signal.SIGSTOP)

    def come_back(self) -> None:
        os.kill(self.server.pid, signal.SIGCONT)


class Restarted(Absence):
    def go(self) -> None:
        self.server.stop()

    def come_back(self) -> None:
        self.server.start()


class CutOff(Absence):
    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._proxy = Proxy(server.port)
        self.url = self.url.replace(str(server.port), str(self._proxy.port))

    def go(self) -> None:
        self._proxy.close()

    def come_back(self) -> None:
        self._proxy = Proxy(self.server.port, self._proxy.port)

    def close(self) -> None:
        self._proxy.close()


def noticed(*clients: redis_routing.Router) -> None:
    """Wait until all have found out that the server is away."""
    eventually(lambda: all(client._seed._error for client in clients), "the absence is noticed", DEADLINE)


class TestAbsence:
    @pytest.fixture(params=[Stopped, Restarted, CutOff])
    def absence(self, request: pytest.FixtureRequest, redis_binary: str) -> Iterator[Absence]:
        with running(redis_binary, "--appendonly", "yes", "--appendfsync", "always") as server:
            absence = request.param(server)
            yield absence
            absence.close()

    @pytest.mark.usefixtures("impatient")
    def test_nothing_is_lost_or_doubled(self, absence: Absence, job: str) -> None:
        """By whoever sends, reads or waits meanwhile."""
        hub = RedisHub(absence.url, job, EXPIRY, DEADLINE)
        link = RedisLink(absence.url, job, 0, 0, DEADLINE)
        store = RedisStore((absence.url,), job, EXPIRY, DEADLINE)
        store.put("kept", [b"x"])
        link.send(hello(text="0"))
        hub.broadcast(commit(0), [(0, 0)])
        with ThreadPoolExecutor(2) as ends, ThreadPoolExecutor(1) as keeper:
            (theirs,) = keeper.submit(lambda: store._clients).result(DEADLINE)
            absence.go()
            sending = ends.submit(link.send, hello(text="1"))
            broadcasting = ends.submit(hub.broadcast, commit(1), [(0, 0)])
            reading = keeper.submit(store.get, ["kept"])
            noticed(link._client, hub._client, hub._pulse._client, theirs)
            absence.come_back()
            assert reading.result(DEADLINE) == [b"x"]
            sending.result(DEADLINE)
            broadcasting.result(DEADLINE)
            assert [link.receive(DEADLINE) for _ in range(2)] == [commit(0), commit(1)]
            assert [hub.receive(DEADLINE) for _ in range(2)] == [hello(text="0"), hello(text="1")]

            absence.go()
            hearing = ends.submit(hub.receive, DEADLINE)
            waiting = ends.submit(link.receive, DEADLINE)
            putting = keeper.submit(store.put, "more", [bytes(3 << 20)])
            noticed(link._client, hub._client, theirs)
            absence.come_back()
            putting.result(DEADLINE)
            other = RedisLink(absence.url, job, 1, 0, DEADLINE)
            other.send(hello(1))
            assert hearing.result(DEADLINE) == hello(1)
            hub.broadcast(commit(2), [(0, 0)])
            assert waiting.result(DEADLINE) == commit(2)
        assert hub.receive(0.0) is None
        with pytest.raises(DeadlineExceeded):
            link.receive(0.0)
        assert len(store.get(["more"])[0]) == 3 << 20
        link.close()
        other.close()
        hub.destroy()
        store.destroy()
        with absence.server.client() as client:
            assert keys_of(client, job) == []

    def test_the_time_of_an_absence_does_not_count_as_silence(
        self, bus: tuple[RedisHub, RedisLink], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A read that takes a thousand seconds is one of a server that was away."""
        hub, link = bus
        now, wait = 0.0, link._reader.wait

        def away(timeout: float) -> list[object]:
            nonlocal now
            now += 1000.0
            monkeypatch.setattr(link._reader, "wait", wait)
            hub.broadcast(commit(1), [(0, 0)])
            return []

        monkeypatch.setattr(redis_bus, "time", SimpleNamespace(monotonic=lambda: now))
        monkeypatch.setattr(link._reader, "wait", away)
        assert link.receive(10.0) == commit(1)

    def test_a_sign_of_life_outlasts_an_absence(
        self, client: redis.Redis, bus: tuple[RedisHub, RedisLink], job: str
    ) -> None:
        """That of a hub which has its connection back at the last moment."""
        assert client.pttl(redis_bus._sign(job)) > (PATIENCE + redis_bus._RENEWAL) * 1000


LOST = "the server has lost the job's messages"


class TestEmptied:
    """A server that comes back empty: the hub goes on, links of before do not, those of after do."""

    @pytest.mark.usefixtures("impatient")
    def test_restarted_while_both_ends_wait(self, own_redis_server: Server, job: str) -> None:
        with meeting(own_redis_server, job, DEADLINE) as (hub, old), ThreadPoolExecutor(2) as ends:
            hearing = ends.submit(hub.receive, 4 * DEADLINE)
            waiting = ends.submit(old.receive, 4 * DEADLINE)
            before = hub._keys
            own_redis_server.stop()
            with pytest.warns(RuntimeWarning, match=LOST):  # noqa: PT031
                own_redis_server.start()
                eventually(lambda: hub._keys is not before and hub._pulse.beat is hub._beat, "a new bus")
            with pytest.raises(Disconnected, match="restarted or emptied"):
                waiting.result(DEADLINE)
            with pytest.raises(Disconnected):
                old.send(hello())
            new = RedisLink(own_redis_server.url, job, 0, 1, DEADLINE)
            new.send(Hello(0, 1, 1, PROTOCOL, "new"))
            assert hearing.result(DEADLINE) == Hello(0, 1, 1, PROTOCOL, "new")
            hub.broadcast(commit(1), [(0, 0), (0, 1)])
            assert new.receive(DEADLINE) == commit(1)
            with pytest.raises(Disconnected):
                old.receive(DEADLINE)
            new.close()
            hub.destroy()
            with own_redis_server.client() as client:
                assert keys_of(client, job) == []

    @pytest.mark.usefixtures("impatient")
    @pytest.mark.parametrize(
        ("lost", "notices"),
        [("all", "admit"), ("all", "broadcast"), ("up", "admit"), ("down", "admit"), ("down", "broadcast")],
    )
    def test_a_link_of_before_is_out_although_there_is_a_new_bus(
        self, own_redis_server: Server, job: str, lost: str, notices: str
    ) -> None:
        """Whatever the server has dropped, and whatever the hub does next."""
        with meeting(own_redis_server, job) as (hub, old), own_redis_server.client() as client:
            client.flushall() if lost == "all" else client.delete(getattr(hub._keys, lost))
            with pytest.warns(RuntimeWarning, match=LOST):
                hub.admit([(0, 1)]) if notices == "admit" else hub.broadcast(commit(1), [(0, 0)])
            with pytest.raises(Disconnected):
                old.send(hello())
            with pytest.raises(Disconnected):
                old.receive(DEADLINE)
            new = RedisLink(own_redis_server.url, job, 0, 1, PATIENCE)
            hub.broadcast(commit(2), [(0, 1)])
            assert new.receive(DEADLINE) == commit(2)
            new.close()
            hub.destroy()
            assert keys_of(client, job) == []

    def test_a_lost_sign_of_life_alone_is_no_loss(
        self, client: redis.Redis, bus: tuple[RedisHub, RedisLink], server: Server, job: str
    ) -> None:
        """It is renewed before functions are launched."""
        hub, link = bus
        client.delete(redis_bus._sign(job))
        hub.admit([(1, 0)])
        RedisLink(server.url, job, 1, 0, PATIENCE).close()
        hub.broadcast(commit(1), [(0, 0)])
        assert link.receive(DEADLINE) == commit(1)

    def test_the_store_has_nothing(self, own_redis_server: Server, job: str) -> None:
        store = RedisStore((own_redis_server.url,), job, EXPIRY, DEADLINE)
        store.put("key", [b"x"])
        own_redis_server.stop()
        own_redis_server.start()
        with pytest.raises(MissingUpdate, match="restarted empty"):
            store.get(["key"])
        store.put("key", [b"y"])
        assert store.get(["key"]) == [b"y"]
        store.destroy()


class TestBus:
    _DRIVER = """
import sys
from mlless import train
from mlless.artifact import MODEL
from mlless.channels import redis_bus
redis_bus._RENEWAL, redis_bus._MARGIN = 0.1, 2.0
hub = redis_bus.RedisHub(sys.argv[1], sys.argv[2], 600.0, patience=1.0)
print("open", flush=True)
hub.receive(600.0)
hub.receive(600.0)
"""

    @pytest.mark.usefixtures("impatient")
    def test_workers_notice_that_their_driver_was_killed(
        self, server: Server, client: redis.Redis, job: str
    ) -> None:
        driver = subprocess.Popen(
            [sys.executable, "-c", self._DRIVER, server.url, job], stdout=subprocess.PIPE, text=True
        )
        try:
            assert driver.stdout
            assert driver.stdout.readline() == "open\n"
            link = RedisLink(server.url, job, 0, 0, PATIENCE)
            link.send(hello())
            client.pexpire(redis_bus._sign(job), 1_000_000)
            eventually(lambda: client.pttl(redis_bus._sign(job)) <= 3000, "the sign of life is renewed")
        finally:
            driver.kill()
            driver.wait()
            driver.stdout.close()
        with pytest.raises(Disconnected, match="the supervisor is gone"):
            link.receive(DEADLINE)
        link.close()
        assert all(0 < client.pttl(name) <= EXPIRY * 1000 for name in keys_of(client, job))
        client.delete(*keys_of(client, job))

    def test_without_a_hub_there_is_no_link(self, server: Server, job: str) -> None:
        with pytest.raises(Disconnected, match="the supervisor is not there"):
            RedisLink(server.url, job, 0, 0, PATIENCE)

    @pytest.mark.usefixtures("impatient")
    def test_all_keys_expire_and_none_is_left(self, server: Server, client: redis.Redis, job: str) -> None:
        with meeting(server, job) as (hub, link):
            names = keys_of(client, job)
            assert len(names) == 3
            assert all(0 < client.pttl(name) <= EXPIRY * 1000 for name in names)
            hub.destroy()
            assert keys_of(client, job) == []
            with pytest.raises(Disconnected):
                link.send(hello())
            with pytest.raises(Disconnected):
                link.receive(DEADLINE)
        assert keys_of(client, job) == []

    def test_memory_stays_flat(self, client: redis.Redis, bus: tuple[RedisHub, RedisLink], job: str) -> None:
        hub, link = bus
        for step in range(2500):
            link.send(hello(text=str(step)))
            assert hub.receive(DEADLINE) == hello(text=str(step))
            hub.broadcast(commit(step), [(worker, 0) for worker in range(5)])
            assert link.receive(DEADLINE) == commit(step)
        assert client.xlen(hub._keys.up) <= 1
        assert client.xlen(hub._keys.down) <= 1200
        assert client.memory_usage(hub._keys.up, samples=0) < 10_000
        assert len(hub._seen) == 1

    def test_a_link_left_too_far_behind_says_so(self, bus: tuple[RedisHub, RedisLink]) -> None:
        hub, link = bus
        for step in range(1500):
            hub.broadcast(commit(step), [(0, 0)])
        with pytest.raises(ChannelError, match="messages of the supervisor are lost"):
            link.receive(DEADLINE)

    def test_random_entries_end_in_codec_errors(
        self, client: redis.Redis, bus: tuple[RedisHub, RedisLink], job: str
    ) -> None:
        """In either stream; then a message is heard as if nothing had been."""
        hub, link = bus
        chance = random.Random(0)

        def bytes_of(n: int) -> bytes:
            return chance.randbytes(chance.randrange(n))

        senders = [b"3.0." + b"a" * 16, b"3.0.x", b"", b"*", b",0,", b"-1.0." + b"a" * 16]
        numbers = [b"1", b"", b"-1", b"1e9", b"9" * 30, b"\xd9\xa1"]
        entries: list[dict[bytes, bytes]] = [{bytes_of(5): bytes_of(50)} for _ in range(50)]
        for sender in senders:
            entries += [{b"f": sender, b"n": number, b"m": bytes_of(50)} for number in numbers]
            entries.append({b"f": sender, b"n": b"5"})
            entries.append({b"n": b"5", b"f": sender, b"m": encode(hello())})
        for entry in entries:
            client.xadd(hub._keys.up, entry)
        link.send(hello(text="unharmed"))
        self._await(lambda: hub.receive(DEADLINE), hello(text="unharmed"), len(entries))
        for entry in entries:
            if entry.get(b"n", b"") not in (b"1", b"9" * 30):  # other numbers are told apart below
                client.xadd(hub._keys.down, entry)
        hub.broadcast(Abort("unharmed"), [(0, 0)])
        self._await(lambda: link.receive(DEADLINE), Abort("unharmed"), len(entries))

    @staticmethod
    def _await(receive: Callable[[], object], expected: object, most: int) -> None:
        for _ in range(most + 1):
            try:
                message = receive()
            except CodecError:
                continue
            assert message == expected
            return
        raise AssertionError("nothing came")

    def test_a_stream_that_is_none_is_an_error(
        self, client: redis.Redis, bus: tuple[RedisHub, RedisLink], job: str
    ) -> None:
        hub, link = bus
        for name in (hub._keys.up, hub._keys.down):
            client.set(name, "not a stream")
        with pytest.raises(ChannelError, match="WRONGTYPE"):
            hub.receive(DEADLINE)
        with pytest.raises(ChannelError, match="WRONGTYPE"):
            hub.broadcast(commit(1), [(0, 0)])
        with pytest.raises(ChannelError, match="WRONGTYPE"):
            link.receive(DEADLINE)
        with pytest.raises(ChannelError, match="WRONGTYPE"):
            link.send(hello())


@pytest.mark.usefixtures("impatient")
class TestTold:
    """What a user reads when a server does not do its work."""

    @staticmethod
    def told(url: str, kind: type[MLLessError] = ChannelError) -> str:
        """The error of opening a store there; whatever is shown of it is without the password."""
        with pytest.raises(kind) as raised:
            RedisStore((url,), "mlless-told", EXPIRY, PATIENCE).put("key", [b"x"])
        shown = "".join(traceback.format_exception(raised.value))
        for secret in (PASSWORD, QUOTED, "with:signs", "hunter2"):
            assert secret not in shown
        return str(raised.value)

    def test_nobody_there(self) -> None:
        port = free_port()
        text = self.told(f"redis://user:hunter2@127.0.0.1:{port}")
        assert text.startswith(f"redis://127.0.0.1:{port}: the server cannot be reached")
        assert "Is it running" in text
        assert "cannot be reached" in self.told("unix:///no/such/socket?password=hunter2")
        assert "cannot be reached" in self.told("redis://no-such-host.invalid")

    def test_wrong_password(self, secure_redis_server: Server) -> None:
        url = secure_redis_server.url
        assert "check user and password" in self.told(url.replace(QUOTED, "hunter2")).lower()
        assert "check user and password" in self.told(url.replace(f":{QUOTED}@", "")).lower()

    def test_tls(self, secure_redis_server: Server, server: Server) -> None:
        url = secure_redis_server.url
        assert "Check its certificate against ?ssl_ca_certs" in self.told(url.split("?")[0])
        plain = server.url.replace("redis:", "rediss:") + "?socket_timeout=0.5"
        assert "without the TLS that rediss:// asks for" in self.told(plain)
        assert "TLS (rediss://)" in self.told(url.split("?")[0].replace("rediss:", "redis:"))
        assert "No such file" in self.told(url.split("?")[0] + "?ssl_ca_certs=/no/such/file")

    def test_no_permission(self, server: Server, client: redis.Redis, job: str) -> None:
        url = server.url.replace("//", "//limited:hunter2@")
        rules = ["on", ">hunter2", "~mlless-*", "-@all", "+ping"]
        client.execute_command("ACL", "SETUSER", "limited", *rules)
        assert "may not do this" in self.told(url)
        # And what it says is enough.
        allowed = ["+@read", "+@write", "+@stream", "+@connection", "+eval"]
        client.execute_command("ACL", "SETUSER", "limited", *allowed)
        store = RedisStore((url,), job, EXPIRY, PATIENCE)
        store.put("key", [bytes(2 << 20)])
        store.renew(["key"])
        assert len(store.get(["key"])[0]) == 2 << 20
        store.destroy()
        hub = RedisHub(url, job, EXPIRY, PATIENCE)
        link = RedisLink(url, job, 0, 0, PATIENCE)
        link.send(hello())
        assert hub.receive(DEADLINE) == hello()
        hub.broadcast(commit(1), [(0, 0)])
        assert link.receive(DEADLINE) == commit(1)
        link.close()
        hub.destroy()
        assert keys_of(client, job) == []
        client.execute_command("ACL", "DELUSER", "limited")

    def test_a_hub_that_cannot_start_leaves_nothing(
        self, server: Server, client: redis.Redis, job: str
    ) -> None:
        rules = ["on", ">hunter2", "~mlless-*", "+@read", "+@write", "+@connection", "-set"]
        client.execute_command("ACL", "SETUSER", "limited", *rules)
        with pytest.raises(ChannelError, match="may not do this"):
            RedisHub(server.url.replace("//", "//limited:hunter2@"), job, EXPIRY, PATIENCE)
        assert keys_of(client, job) == []
        client.execute_command("ACL", "DELUSER", "limited")

    def test_a_replica(self, own_redis_server: Server, job: str) -> None:
        with own_redis_server.client() as client, meeting(own_redis_server, job) as (_, link):
            client.replicaof("127.0.0.1", free_port())
            with pytest.raises(ChannelError, match="Name the primary"):
                link.send(hello())
        assert "Name the primary" in self.told(own_redis_server.url)

    def test_a_cluster_without_slots(self, redis_binary: str) -> None:
        with running(redis_binary, "--cluster-enabled", "yes", "--cluster-port", str(free_port())) as server:
            assert "no nodes with slots" in self.told(server.url)

    def test_out_of_memory(self, redis_binary: str, job: str) -> None:
        with running(redis_binary, "--maxmemory", "6mb") as server:
            store = RedisStore((server.url,), job, EXPIRY, PATIENCE)
            with pytest.raises(ChannelError, match=r"out of memory.*Raise its maxmemory"):
                store.put("large", [bytes(20 << 20)])
            with server.client() as client:
                assert keys_of(client, job) == []  # the parts that there was room for
            store.put("small", [b"x"])
            store.destroy()
            with meeting(server, job) as (hub, link), server.client() as client:
                client.config_set("maxmemory", 1)
                with pytest.raises(ChannelError, match="out of memory"):
                    link.send(hello())
                with pytest.raises(ChannelError, match="out of memory"):
                    hub.broadcast(commit(1), [(0, 0)])

    def test_not_an_address(self) -> None:
        for url in (
            "redis://user:pa/hunter2@host",
            "redis://:hunter2@host:port",
            "redis://host?db=x",
            "redis://host/name",
        ):
            assert "percent-encode" in self.told(url, UsageError).lower() or "USER" in self.told(
                url, UsageError
            )
        assert "'colour'" in self.told("redis://:hunter2@localhost?colour=red", UsageError)
        assert "maybe" in self.told("rediss://:hunter2@localhost?ssl_cert_reqs=maybe", UsageError)


class TestJobs:
    def test_a_job_gives_the_same_bits_over_servers_and_leaves_nothing_there(
        self, server: Server, valkey_server: Server, ratings: Dataset, tmp_path: Path
    ) -> None:
        stores = ["embedded", server.url, f"{valkey_server.url} {server.unix}"]
        models = []
        for n, store in enumerate(stores):
            run = train(ratings.location, workers=3, epochs=2, out=tmp_path / str(n), store=store)
            models.append((run.folder / MODEL).read_bytes())
        assert models[0] == models[1] == models[2]
        for one in (server, valkey_server):
            with one.client() as client:
                assert keys_of(client, "mlless-") == []

    @pytest.mark.parametrize("policy", ["volatile-ttl", "allkeys-lru"])
    @pytest.mark.parametrize("place", ["store", "bus"])
    def test_a_server_that_drops_keys_is_refused(
        self, redis_binary: str, ratings: Dataset, tmp_path: Path, policy: str, place: str
    ) -> None:
        """With its address and the cure, before anything is made there."""
        options = ("--maxmemory", "100mb", "--maxmemory-policy", policy)
        with running(redis_binary, *options) as server:
            url, told = server.url.replace("//", "//:hunter2@"), f"127.0.0.1:{server.port}"
            with server.client() as client:
                client.config_set("requirepass", "hunter2")
            with pytest.raises(UsageError, match=rf"{told}.*found the maxmemory-policy {policy}") as raised:
                train(ratings.location, out=tmp_path / "run", workers=2, **{place: url})
            assert raised.value.cure == EVICTS_CURE
            assert "hunter2" not in str(raised.value)
            with redis.Redis.from_url(url) as client:
                assert client.dbsize() == 0
                client.config_set("maxmemory-policy", "noeviction")
            train(ratings.location, out=tmp_path / "other", workers=2, epochs=1, **{place: url})

    def test_a_server_that_cannot_be_asked_is_taken_at_its_word(
        self, server: Server, client: redis.Redis, ratings: Dataset, tmp_path: Path
    ) -> None:
        rules = ["on", ">hunter2", "~mlless-*", "+@read", "+@write", "+@stream", "+@connection", "+eval"]
        client.execute_command("ACL", "SETUSER", "limited", *rules)
        url = server.url.replace("//", "//limited:hunter2@")
        with pytest.warns(RuntimeWarning, match="must be noeviction") as told:
            train(ratings.location, out=tmp_path, workers=2, epochs=1, store=f"{url} {url}", bus=url)
        assert len(told) == 1
        assert "hunter2" not in str(told[0].message)
        client.execute_command("ACL", "DELUSER", "limited")

    def test_an_interrupted_job_does_not_wait_for_a_server_that_hangs(
        self, own_redis_server: Server, ratings: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis_client, "_LAST_TIMEOUT", 0.2)

        def hang(record: StepRecord) -> None:
            os.kill(own_redis_server.pid, signal.SIGSTOP)
            raise KeyboardInterrupt

        def told(hub: RedisHub, message: object, functions: object) -> None:
            assert not isinstance(message, Abort)
            broadcast(hub, message, functions)  # type: ignore[arg-type]

        broadcast = RedisHub.broadcast
        monkeypatch.setattr(RedisHub, "broadcast", told)
        try:
            with pytest.raises(KeyboardInterrupt):
                train(ratings.location, out=tmp_path, store=own_redis_server.url, workers=2, listen=hang)
        finally:
            os.kill(own_redis_server.pid, signal.SIGCONT)

    def test_a_job_whose_server_is_emptied_goes_on_from_its_checkpoint(
        self, own_redis_server: Server, ratings: Dataset, tmp_path: Path
    ) -> None:
        """Its workers are gone, and the store as well."""

        emptied: list[int] = []

        def flush(record: StepRecord) -> None:
            if record.step == 20 and not emptied:
                emptied.append(record.step)
                with own_redis_server.client() as client:
                    client.flushall()

        with pytest.warns(RuntimeWarning, match=LOST):
            run = train(
                ratings.location,
                workers=2,
                epochs=5,
                out=tmp_path / "run",
                store=own_redis_server.url,
                listen=flush,
            )
        history = run.history()
        assert [record.step for record in history] == list(range(run.summary.steps))
        assert any(record.rewound_to is not None for record in history)
        assert run.summary.stop_reason == "epochs"
        with own_redis_server.client() as client:
            assert keys_of(client, "") == []


def test_servers_end_with_the_process_that_started_them(redis_binary: str) -> None:
    """Even if it is killed."""
    script = (
        "import sys; from servers.redis import running\n"
        "with running(sys.argv[1]) as server: print(server.pid, server.folder, flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{script}", redis_binary],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout
    assert starter.stdin
    pid, folder = starter.stdout.readline().split()
    starter.kill()
    starter.communicate()
    eventually(lambda: not alive(int(pid)), "the server ends", DEADLINE)
    shutil.rmtree(folder)
