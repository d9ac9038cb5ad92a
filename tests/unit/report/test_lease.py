"""A lease: one holder at a time, whatever the store can do."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import obstore
import pytest
from obstore.store import MemoryStore

from mlless.channels.ports import Bytes, Version
from mlless.channels.remote_objects import RemoteObjects
from mlless.errors import ChannelError, JobError, MissingObject, UsageError
from mlless.locations import Prefix
from mlless.report.lease import (
    LEASE,
    PASSING,
    RENEWALS,
    SETTLE,
    STALE,
    VARIABLE,
    _Lease,
    is_held,
    lasting,
    leased,
)

RUN = Prefix("s3", "bucket", "run")
CURE = "wait until it has ended"
RENEW = STALE / RENEWALS


class Memory(RemoteObjects):
    """A store in memory, which looks at conditions as S3 does."""

    def __init__(self) -> None:
        super().__init__(RUN)
        self._store = MemoryStore()  # type: ignore[assignment]

    def get_version(self, path: str) -> tuple[bytes, Version]:
        try:
            obstore.head(self._store, path)
        except FileNotFoundError as error:  # a server says so by its status
            raise MissingObject("no such object") from error
        return super().get_version(path)


class Careless(Memory):
    """One that does not."""

    def put_version(self, path: str, data: Bytes, before: Version | None) -> bool:
        self.put(path, data)
        return True


class Time:
    """Time that goes on when somebody waits; ``at`` says what happens then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: Callable[[float], object] = lambda now: None

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.at(self.now)


KINDS = pytest.mark.parametrize("kind", [Memory, Careless])


def holder(store: RemoteObjects, time: Time | None = None, name: str = "", stale: float = STALE) -> _Lease:
    return _Lease(store, RUN, CURE, (time or Time()).wait, name, stale)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")


def test_a_lease_that_nobody_has_is_taken_at_once_where_conditions_hold() -> None:
    time = Time()
    holder(Memory(), time).take()
    assert time.now == 0.0


def test_where_they_do_not_it_is_read_back_after_a_moment() -> None:
    time = Time()
    holder(Careless(), time).take()
    assert time.now == SETTLE


@KINDS
def test_a_lease_that_is_renewed_is_respected(kind: type[Memory]) -> None:
    store, time = kind(), Time()
    first = holder(store)
    first.take()

    def renew(now: float) -> None:
        if now == RENEW:
            first.renew()

    time.at = renew
    with pytest.raises(
        UsageError, match=r"another job writes to this run: found process \d+ of .*Wait until"
    ):
        holder(store, time).take()
    assert time.now == RENEW
    first.renew()
    assert not first.hold.lost


@KINDS
def test_an_abandoned_lease_is_waited_out(kind: type[Memory]) -> None:
    store, time = kind(), Time()
    first, second = holder(store), holder(store, time)
    first.take()
    second.take()
    assert STALE <= time.now <= STALE + SETTLE
    first.renew()
    assert first.hold.lost
    with pytest.raises(JobError, match="another job has taken over this run"):
        first.hold.check()
    first.release()
    second.renew()
    second.hold.check()


@KINDS
def test_who_has_the_name_of_a_holder_that_is_dead_goes_on_with_its_lease(kind: type[Memory]) -> None:
    store, time = kind(), Time()
    holder(store, name="job").take()
    second = holder(store, time, "job")
    second._mine = msgspec.structs.replace(second._mine, pid=second._mine.pid + 1)
    second.take()
    assert time.now <= SETTLE
    assert msgspec.json.decode(store.get(LEASE))["pid"] == second._mine.pid
    second.renew()
    second.hold.check()
    other = holder(store, time)
    time.at = lambda now: second.renew()
    with pytest.raises(UsageError, match="another job writes to this run"):
        other.take()


@KINDS
def test_who_was_taken_for_dead_has_no_successor(kind: type[Memory]) -> None:
    store, time = kind(), Time()
    holder(store, name="job").take()
    other = holder(store, time)
    other.take()
    time.at = lambda now: other.renew()
    with pytest.raises(UsageError, match="another job writes to this run"):
        holder(store, time, "job").take()


def test_a_lease_that_is_passed_on_waits_for_the_next_one() -> None:
    store, time = Memory(), Time()
    with leased(store, RUN, CURE, holder="job", wait=time.wait) as hold:
        hold.passed_on = True
    assert not is_held(store, wait=time.wait)
    assert time.now == PASSING
    with leased(store, RUN, CURE, holder="job", wait=time.wait):
        assert time.now == PASSING
        assert msgspec.json.decode(store.get(LEASE))["stale"] == STALE
    with pytest.raises(MissingObject):
        store.get_version(LEASE)


def test_a_lease_says_when_it_is_abandoned() -> None:
    store, time = Memory(), Time()
    holder(store, stale=6.0).take()
    assert not is_held(store, wait=time.wait)
    assert time.now == 6.0
    holder(store, time).take()
    assert time.now == 12.0


def test_another_time_is_set_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lasting() == STALE
    monkeypatch.setenv(VARIABLE, "60")
    assert lasting() == 60.0
    for text in ("1", "soon", "nan", "inf"):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(UsageError, match=f"{VARIABLE}: .* expected seconds, at least 4, found {text}"):
            lasting()


@KINDS
def test_a_lease_that_is_let_go_of_meanwhile_is_taken(kind: type[Memory]) -> None:
    store, time = kind(), Time()
    first = holder(store)
    first.take()
    time.at = lambda now: first.release() if now == 3.0 else None
    holder(store, time).take()
    assert time.now <= 3.0 + SETTLE


@KINDS
def test_of_two_who_wait_one_out_only_one_takes_it(kind: type[Memory]) -> None:
    store, time = kind(), Time()
    holder(store).take()
    other, late = holder(store), holder(store, time)
    put, came = store.put_version, threading.Event()

    def overtaken(path: str, data: Bytes, before: Version | None) -> bool:
        if not came.is_set():  # just after the last look of the other
            came.set()
            assert other._write(before)
        return put(path, data, before)

    def renew(now: float) -> None:
        if came.is_set() and now > STALE + SETTLE:
            other.renew()

    store.put_version, time.at = overtaken, renew  # type: ignore[method-assign]
    if kind is Memory:
        with pytest.raises(UsageError, match="another job writes to this run"):
            late.take()
        other.renew()
        assert not other.hold.lost
    else:  # the later one, and the other notices
        late.take()
        other.renew()
        assert other.hold.lost


def test_a_word_that_was_lost_on_the_way_does_not_matter() -> None:
    class Forgetful(Memory):
        def put_version(self, path: str, data: Bytes, before: Version | None) -> bool:
            super().put_version(path, data, before)
            return False

    time = Time()
    holder(Forgetful(), time).take()
    assert time.now == 0.0


def test_a_lease_that_somebody_deleted_is_made_again() -> None:
    store = Memory()
    lease = holder(store)
    lease.take()
    store.delete([LEASE])
    lease.renew()
    assert not lease.hold.lost
    assert store.get_version(LEASE)


def test_what_is_no_lease_is_told() -> None:
    store = Memory()
    store.put(LEASE, b"no")
    with pytest.raises(ChannelError, match=r"lease.json: not a lease: .*delete it"):
        holder(store).take()


def test_a_lease_is_renewed_as_long_as_it_is_held() -> None:
    store, renewed = Memory(), threading.Event()
    put = store.put_version

    def counted(path: str, data: Bytes, before: Version | None) -> bool:
        if b'"renewals":3' in bytes(data):
            renewed.set()
        return put(path, data, before)

    store.put_version = counted  # type: ignore[method-assign]
    with leased(store, RUN, CURE, wait=Time().wait, renew=0.001) as hold:
        assert renewed.wait(20.0)
        hold.check()
    with pytest.raises(MissingObject):
        store.get_version(LEASE)


def test_a_holder_that_is_told_of_an_outage_goes_on() -> None:
    store, away, back = Memory(), threading.Event(), threading.Event()
    get, calls = store.get_version, [0]

    def flaky(path: str) -> tuple[bytes, Version]:
        calls[0] += 1
        if 3 <= calls[0] < 6:
            away.set()
            raise ChannelError("cannot reach the store")
        if calls[0] > 6:
            back.set()
        return get(path)

    store.get_version = flaky  # type: ignore[method-assign]
    with leased(store, RUN, CURE, wait=Time().wait, renew=0.001) as hold:
        assert away.wait(20.0)
        assert back.wait(20.0)
        hold.check()


@KINDS
def test_who_looks_whether_a_lease_is_held_takes_nothing(kind: type[Memory]) -> None:
    store, time = kind(), Time()
    assert not is_held(store, wait=time.wait)
    assert time.now == 0.0
    first = holder(store)
    first.take()
    time.at = lambda now: first.renew() if now == RENEW else None
    assert is_held(store, wait=time.wait)
    assert time.now == RENEW
    time.now = 0.0
    time.at = lambda now: None
    assert not is_held(store, wait=time.wait)  # it is abandoned
    assert time.now == STALE
    time.now = 0.0
    time.at = lambda now: first.release() if now == RENEW else None
    assert not is_held(store, wait=time.wait)
    assert time.now == RENEW
