"""What doctor makes of what functions say, and of functions that do not say it."""

from __future__ import annotations

from collections import deque

import msgspec
import pytest

import mlless
from mlless import kernels, launch, probe
from mlless.channels.redis_health import parsed
from mlless.clock import SystemClock
from mlless.deployment import Addresses
from mlless.diagnosis import clocks_finding, functions_finding, server_finding, versions_finding
from mlless.doctor import gather
from mlless.errors import DeadlineExceeded, JobError, UsageError, WorkerFailed, WorkerLost
from mlless.messages import PROTOCOL, Failure
from mlless.probe import ROUNDS, Probe, Sight, StoreSpeed, greeting
from mlless.runtimes.ports import Ended


class Functions:
    """Hub and runtime in one: functions that do as a test says."""

    def __init__(self, *messages, ended=()):
        self._messages, self._ended = deque(messages), list(ended)
        self.answers = []

    def receive(self, timeout):
        return self._messages.popleft() if self._messages else None

    def broadcast(self, message, functions):
        self.answers.append((self._messages.copy(), *(worker for worker, _ in functions)))

    def ended(self):
        ended, self._ended = self._ended, []
        return ended

    def gather(self, workers):
        return gather(self, self, SystemClock(), workers, patience=0.0)


def _sight(*, ahead=0.0, way=0.01, **changes):
    greetings = tuple((n + ahead, n + ahead + 2 * way) for n in range(ROUNDS))
    values = {
        "protocol": PROTOCOL, "version": mlless.__version__, "python": "3.12.1", "machine": "Linux x86_64",
        "kernels": kernels.NAME, "import_seconds": 0.2, "memory": 2 << 30,
        "store": StoreSpeed(0.001, 1e8, 1e8), "greetings": greetings,
    }  # fmt: skip
    return Sight(**values | changes)


def test_no_one_is_answered_before_all_are_there():
    first = [greeting(worker) for worker in (1, 0, 2)]
    rest = [greeting(worker) for worker in (0, 1, 2) for _ in range(ROUNDS)]
    functions = Functions(*first, *rest)
    started = SystemClock().now()
    heard, there = functions.gather(3)
    assert functions.answers[0] == (deque(rest), 0, 1, 2)
    assert [to for _, *to in functions.answers[1:]] == [[w] for w in (0, 1, 2) for _ in range(ROUNDS - 1)]
    assert all(len(times) == ROUNDS + 1 for times in heard.values())
    assert started <= there <= SystemClock().now()


def test_fewer_functions_at_once_than_asked_for():
    functions = Functions(greeting(0), greeting(2))
    with pytest.raises(DeadlineExceeded, match="expected all of 4, found 2 that have reported"):
        functions.gather(4)
    assert functions.answers == []


def test_a_function_that_dies():
    functions = Functions(greeting(0), ended=[Ended(1, 0, -9, 0.1)])
    with pytest.raises(WorkerLost, match="function 1 ended before it had reported: found signal SIGKILL"):
        functions.gather(2)


def test_a_function_may_end_once_it_has_reported():
    *all_but_one, last = [greeting(worker) for _ in range(ROUNDS + 1) for worker in (0, 1)]
    functions = Functions(*all_but_one, None, last, ended=[Ended(0, 0, 0, 0.1)])
    heard, _ = functions.gather(2)
    assert [len(times) for times in heard.values()] == [ROUNDS + 1] * 2


@pytest.mark.parametrize(("code", "exit_code"), [(5, 5), (0, 6)])
def test_a_function_that_fails_says_why(code, exit_code):
    functions = Functions(Failure(0, 0, -1, "cannot reach it", code, ""))
    with pytest.raises(WorkerFailed, match="function 0 failed: cannot reach it") as error:
        functions.gather(1)
    assert error.value.exit_code == exit_code


@pytest.mark.parametrize("ahead", [-3.0, 0.0, 0.25, 7.0])
def test_clocks_are_compared_at_the_midpoint(ahead):
    heard = {0: [n + 0.01 for n in range(ROUNDS)], 1: [n + 0.01 for n in range(ROUNDS)]}
    found = clocks_finding([_sight(), _sight(ahead=ahead)], heard)
    assert found.facts["skew"] == pytest.approx(ahead, abs=1e-9)
    assert found.facts["doubt"] == pytest.approx(0.01)
    assert found.outcome == "ok"


def test_an_answer_that_was_kept_back_does_not_count_as_skew():
    slow = _sight()
    greetings = ((0.0, 50.0), *slow.greetings[1:])
    found = clocks_finding([_sight(greetings=greetings)], {0: [n + 0.01 for n in range(ROUNDS)]})
    assert found.facts["skew"] == pytest.approx(0.0, abs=1e-9)


def test_clocks_far_apart_are_a_warning():
    found = clocks_finding([_sight(ahead=-400)], {0: [n + 0.01 for n in range(ROUNDS)]})
    assert found.outcome == "warning"
    assert "behind" in found.text
    assert "NTP" in found.cure


@pytest.mark.parametrize("change", [{"version": "9.9.9"}, {"protocol": 99}])
def test_another_release_on_the_other_side(change):
    found = versions_finding([_sight(), _sight(**change)])
    assert (found.outcome, found.exit_code) == ("failed", JobError.exit_code)
    assert str(next(iter(change.values()))) in found.text
    assert f"mlless {mlless.__version__}" in found.text


def test_functions_without_compiled_kernels_are_a_warning():
    assert functions_finding([_sight()], 1.0, None).outcome == "ok"
    other = "numpy" if kernels.NAME == "native" else "native"
    found = functions_finding([_sight(), _sight(kernels=other)], 1.0, 900.0)
    assert found.outcome == "warning"
    assert f"kernels {other}" in found.text
    assert "each with 2,048 MB of memory, ended after 15 min" in found.text


def test_a_probe_refuses_a_driver_of_another_protocol():
    told = Probe(PROTOCOL + 1, "9.9.9", Addresses("j", ("/none",), "/none"), 60.0, None, 0, 0)
    for main in (probe.main, launch.main):
        with pytest.raises(JobError, match=r"9\.9\.9"):
            main(msgspec.json.encode(told))


INFO = """# Server\r
redis_version:7.2.4\r
{valkey}os:Linux 6.1.0 x86_64\r
# Memory\r
used_memory:1000000\r
total_system_memory:8000000000\r
maxmemory:{limit}\r
maxmemory_policy:{policy}\r
"""


@pytest.mark.parametrize(
    ("limit", "policy", "outcome", "free"),
    [
        (0, "noeviction", "ok", 7_999_000_000),
        (0, "allkeys-lru", "ok", 7_999_000_000),
        (5_000_000, "noeviction", "ok", 4_000_000),
        (5_000_000, "volatile-lru", "failed", 4_000_000),
        (5_000_000, "allkeys-lru", "failed", 4_000_000),
    ],
)
def test_a_server_that_would_drop_updates_is_refused_as_by_a_job(limit, policy, outcome, free):
    health = parsed(INFO.format(valkey="", limit=limit, policy=policy))
    found = server_finding("redis://h", health)
    assert (found.outcome, health.free, health.release) == (outcome, free, "Redis 7.2.4")
    assert ("CONFIG SET maxmemory-policy noeviction" in (found.cure or "")) == (outcome == "failed")
    assert found.exit_code == (UsageError.exit_code if outcome == "failed" else 0)


def test_releases_of_servers():
    valkey = parsed(INFO.format(valkey="valkey_version:9.1.0\r\n", limit=0, policy="noeviction"))
    assert valkey.release == "Valkey 9.1.0"
    assert server_finding("redis://h", valkey).outcome == "ok"
    old = parsed("redis_version:5.0.7\r\nused_memory:1\r\n")
    found = server_finding("redis://h", old)
    assert (found.outcome, "Redis 5.0.7" in found.text) == ("warning", True)
    assert server_finding("redis://h", None).outcome == "warning"
