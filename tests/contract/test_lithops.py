"""Lithops on this machine keeps the contract of a runtime, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlless.runtimes.lithops import LithopsRuntime
from mlless.runtimes.ports import Runtime
from mlless.testing.contracts import RuntimeContract


class TestLithops(RuntimeContract):
    @pytest.fixture
    def open_runtime(self, tmp_path: Path) -> Iterator[Callable[[str], Runtime]]:
        with ExitStack() as stack:

            def opened(entry: str) -> Runtime:
                runtime = LithopsRuntime(entry, None, None, {})
                stack.callback(runtime.stop, 0.0)
                return runtime

            yield opened
