"""What a process has had, what it may have, and how that is said."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mlless import memory
from mlless.memory import MB, megabytes, memory_limit, peak_memory, peak_of, shortage

WITH_A_CHILD = """
import resource, subprocess, sys
taken = bytearray(b"x") * (200 << 20)
child = "from mlless.memory import peak_memory; print(peak_memory())"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout)
"""


def test_the_peak_stays_when_memory_is_let_go_of() -> None:
    before = peak_memory()
    taken = bytearray(b"x") * (before + 64 * MB)
    with_it = peak_memory()
    assert with_it > before + 60 * MB  # the kernel counts in many places, and adds up now and then
    del taken
    assert abs(peak_memory() - with_it) < 4 * MB


def test_what_a_parent_had_does_not_count() -> None:
    """The kernel's usage of a program counts it, if a large process has started the program by vfork."""
    told = subprocess.run(
        [sys.executable, "-c", WITH_A_CHILD], capture_output=True, text=True, check=True
    ).stdout
    assert 2 * MB < int(told) < 100 * MB


def test_without_proc_the_usage_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / "nothing")
    assert abs(peak_memory() - peak_of(resource.getrusage(resource.RUSAGE_SELF))) < MB


def test_the_least_of_the_limits_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_limit() > MB
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "8")
    assert memory_limit() == 8 * MB
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (kind * MB, -1))
    assert memory_limit() == min(resource.RLIMIT_AS, resource.RLIMIT_RSS, 8) * MB


def test_it_is_said_in_mb_as_the_option_counts_them() -> None:
    assert [megabytes(number) for number in (0, 1, MB, MB + 1, 2048 * MB)] == [
        "0 MB", "1 MB", "1 MB", "2 MB", "2,048 MB"
    ]  # fmt: skip
    assert shortage(64 * MB, 64 * MB + 1) == "out of memory: it may have 64 MB and had 65 MB"
