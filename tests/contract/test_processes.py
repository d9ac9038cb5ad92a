"""Processes of this machine keep the contract of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlless.runtimes.ports import Runtime
from mlless.runtimes.processes import ProcessRuntime
from mlless.testing.contracts import RuntimeContract


class TestProcesses(RuntimeContract):
    @pytest.fixture
    def open_runtime(self, tmp_path: Path) -> Iterator[Callable[[str], Runtime]]:
        with ExitStack() as stack:

            def opened(entry: str) -> Runtime:
                runtime = ProcessRuntime(entry, None, {})
                stack.callback(runtime.stop, 0.0)
                return runtime

            yield opened
