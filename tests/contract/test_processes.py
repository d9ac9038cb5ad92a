"""Processes of this machine keep the contract of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from mlless.errors import JobError
from mlless.runtimes.ports import Runtime
from mlless.runtimes.processes import ProcessRuntime
from mlless.testing.contracts import RuntimeContract
from mlless.testing.functions import Task


class TestProcesses(RuntimeContract):
    @pytest.fixture
    def open_runtime(self, tmp_path: Path) -> Iterator[Callable[[str], Runtime]]:
        with ExitStack() as stack:

            def opened(entry: str) -> Runtime:
                runtime = ProcessRuntime(entry, None, {})
                stack.callback(runtime.stop, 0.0)
                return runtime

            yield opened

    def test_nothing_is_left_to_end_when_the_zygote_has_died(
        self, open_runtime: Callable[[str], Runtime], tmp_path: Path
    ) -> None:
        runtime = open_runtime("mlless.testing.functions:wait")
        assert isinstance(runtime, ProcessRuntime)
        runtime.start({(0, 0): msgspec.json.encode(Task(str(tmp_path), "0"))})
        runtime._host.kill()
        runtime._host.wait()
        runtime.end([(0, 0)])
        with pytest.raises(JobError, match="the process that starts workers has died"):
            runtime.ended()
        (tmp_path / "go").touch()
        assert runtime.stop(0.0) == []
        runtime.end([(0, 0)])
