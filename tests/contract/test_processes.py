"""Processes of this machine keep the contract of a runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from integration.jobs import eventually

from mlless.errors import JobError
from mlless.runtimes.limits import Limits
from mlless.runtimes.ports import Runtime
from mlless.runtimes.processes import ProcessRuntime
from mlless.testing.contracts import OpenRuntime, RuntimeContract
from mlless.testing.functions import Task


class TestProcesses(RuntimeContract):
    @pytest.fixture
    def open_runtime(self, tmp_path: Path) -> Iterator[OpenRuntime]:
        with ExitStack() as stack:

            def opened(entry: str, *, time_limit: int | None = None) -> Runtime:
                runtime = ProcessRuntime(entry, None, {}, Limits(time_limit))
                stack.callback(runtime.stop, 0.0)
                return runtime

            yield opened

    def test_nothing_is_left_to_end_when_the_zygote_has_died(
        self, open_runtime: OpenRuntime, tmp_path: Path
    ) -> None:
        runtime = open_runtime("mlless.testing.functions:wait")
        assert isinstance(runtime, ProcessRuntime)
        runtime.start({(0, 0): msgspec.json.encode(Task(str(tmp_path), "0"))})
        eventually((tmp_path / "0.pid").exists, "the function has let go of what it has of the zygote's")
        runtime._host.kill()
        runtime._host.wait()
        runtime.end([(0, 0)])
        with pytest.raises(JobError, match="the process that starts workers has died"):
            runtime.ended()
        (tmp_path / "go").touch()
        assert runtime.stop(0.0) == []
        runtime.end([(0, 0)])
