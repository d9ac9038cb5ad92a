"""Whether there is room for all workers in a cloud, and what a backend gives: without the cloud."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlless.errors import JobError, UsageError
from mlless.runtimes.lithops import LithopsRuntime
from mlless.runtimes.lithops_host import Host, _concurrency, _Errors
from mlless.runtimes.wire import Wanted


class Denied(Exception):
    """As a client raises it."""


class Client:
    """An AWS client that knows the account's concurrency, or may not ask for it."""

    exceptions = SimpleNamespace(ClientError=Denied)

    def __init__(self, left: int | None) -> None:
        self._left = left

    def get_account_settings(self) -> dict[str, Any]:
        if self._left is None:
            raise Denied("AccessDenied")
        return {"AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": self._left}}


def host(
    running: int = 0, memory: int | None = None, time_limit: int | None = None, **settings: object
) -> Host:
    made = Host.__new__(Host)
    made._backend, made._mode = "aws_lambda", "serverless"
    made._wanted = Wanted("a:b", memory, time_limit, {})
    given = {"max_workers": 100, "worker_processes": 1, "runtime_memory": 2048, "runtime_timeout": 900}
    made._config = {"lithops": {}, "aws_lambda": {**given, **settings}}
    made._running = [(None, None)] * running  # type: ignore[list-item]
    return made


def executor(left: int | None, kind: str = "faas") -> Any:
    backend = SimpleNamespace(lambda_client=Client(left))
    return SimpleNamespace(compute_handler=SimpleNamespace(backend=backend, get_backend_type=lambda: kind))


def test_an_account_is_asked_what_it_has_left() -> None:
    assert _concurrency(Client(10)) == 10
    assert _concurrency(Client(None)) is None


@pytest.mark.parametrize(
    ("left", "running", "room"), [(10, 0, 10), (1000, 0, 100), (None, 0, 100), (40, 30, 10)]
)
def test_as_many_may_start_as_there_is_room_for(left: int | None, running: int, room: int) -> None:
    host(running)._check_room(executor(left), room)
    with pytest.raises(UsageError, match=rf"not all workers .* at most {room}, .*found `workers` {room + 1}"):
        host(running)._check_room(executor(left), room + 1)


def test_a_batch_backend_runs_several_in_a_container() -> None:
    made = host(max_workers=3, worker_processes=4)
    made._check_room(executor(None, "batch"), 12)
    with pytest.raises(UsageError, match="at most 12"):
        made._check_room(executor(None, "batch"), 13)


def test_memory_and_time_that_the_backend_has_not_are_refused() -> None:
    host(memory=2048, time_limit=900)._check_limits()
    with pytest.raises(UsageError, match="its limit is 10240 MB, found 20000 MB"):
        host(memory=20000, runtime_memory=10240)._check_limits()
    with pytest.raises(UsageError, match="its limit is 900 s, found 3600 s"):
        host(time_limit=3600)._check_limits()


@pytest.mark.parametrize(
    ("asked", "configured", "limit"), [(None, None, 900), (None, 60, 60), (900, 60, 900), (None, 1800, 900)]
)
def test_the_shortest_limit_holds(asked: int | None, configured: int | None, limit: int) -> None:
    made = host(time_limit=asked)
    made._given = {"lithops": {"execution_timeout": configured}}
    assert made._seconds() == limit


def test_memory_is_what_was_asked_for_or_configured() -> None:
    assert host().memory == 2048
    assert host(runtime_memory=256).memory == 256
    assert host(memory=4096).memory == 4096
    local = host()
    local._mode = "localhost"
    assert local.memory is None


def test_errors_below_lithops_become_ours() -> None:
    with pytest.raises(UsageError, match=r"lithops\[aws\]"), _Errors("it does not work"):
        raise ModuleNotFoundError("No module named 'boto3'")
    with pytest.raises(JobError, match=r"found ValueError: redis://:\*\*\*@h") as caught, _Errors("oh"):
        raise ValueError("redis://:s3cret@h")
    assert "s3cret" not in str(caught.value)
    with pytest.raises(UsageError, match="mine"), _Errors("oh"):
        raise UsageError("mine")


def test_a_configuration_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITHOPS_CONFIG_FILE", "no-such-file.yaml")
    with pytest.raises(UsageError, match=r"no-such-file\.yaml: the configuration of Lithops is not there"):
        LithopsRuntime("a:b", None, None, {})
