"""The memory of a process: how much it may have, and how much it has had at most. In bytes.

MB are 2 to the power of 20 bytes here, as clouds count the memory of a function, and ``--memory`` does.
"""

from __future__ import annotations

import math
import os
import re
import resource
import sys
from pathlib import Path

MB = 1 << 20
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
_PEAK = re.compile(rb"^VmHWM:\s*(\d+) kB", re.MULTILINE)


def peak_of(usage: resource.struct_rusage) -> int:
    """Return the most that a process has had in memory at a time, by what the kernel says of its usage."""
    return usage.ru_maxrss * _UNIT


def peak_memory() -> int:
    """Return the most that this process has had in memory at a time."""
    status = Path("/proc/self/status")
    # Where there is one: the usage also counts what a parent had that has started this program by vfork.
    found = _PEAK.search(status.read_bytes()) if status.exists() else None
    return int(found[1]) * 1024 if found else peak_of(resource.getrusage(resource.RUSAGE_SELF))


def memory_limit() -> int:
    """Return how much this process may have, by the least of the limits that can be told."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_RSS):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    if "AWS_LAMBDA_FUNCTION_MEMORY_SIZE" in os.environ:
        limits.append(int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]) * MB)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # control groups of version 2 and 1
        path = Path("/sys/fs/cgroup", name)
        text = path.read_text().strip() if os.access(path, os.R_OK) else "max"
        if text != "max":
            limits.append(int(text))
    return min(limits)


def megabytes(number: float) -> str:
    """Return a number of bytes in whole MB, rounded up.

    >>> megabytes((64 << 20) + 1)
    '65 MB'
    """
    return f"{math.ceil(number / MB):,} MB"


def shortage(limit: int, peak: int) -> str:
    """Return in words that a function of so much memory is out of it, having had so much."""
    return f"out of memory: it may have {megabytes(limit)} and had {megabytes(peak)}"
