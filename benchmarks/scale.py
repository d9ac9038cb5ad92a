"""Time and memory of making up, partitioning and training on data of the published sizes.

    python benchmarks/scale.py FOLDER [--kind ml-20m] [--rows N] [--workers 4] [--seconds 60]

Everything is made in FOLDER and left there (about 3 GB for ml-20m, 6 GB for 5 million rows of criteo).
Memory is the peak of resident memory: of the command's own process, and of the largest process that it
starts. Training is for one epoch, or as many seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

PAUSE = 0.1  # seconds between looks at the processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", default="ml-20m", choices=("ml-1m", "ml-10m", "ml-20m", "criteo"))
    parser.add_argument("--rows", type=int)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    raw, data, run = (asked.folder / f"{asked.kind}{ending}" for ending in (".txt", "-data", "-run"))
    of_rows = ["--rows", asked.rows] if asked.rows else []
    out = measured("synthesize", asked.kind, raw, *of_rows, "--overwrite", "--json")
    rows = json.loads(out)["rows"]
    options = ["--format", "criteo"] if asked.kind == "criteo" else ["--format", "ratings"]
    measured("partition", raw, data, *options, "--overwrite", "--json", rows=rows)
    stop = ["--epochs", 1, "--max-time", asked.seconds]
    measured("train", data, "--workers", asked.workers, *stop, "--out", run, "--overwrite")
    told = json.loads((run / "summary.json").read_text())
    steps = told["wall_seconds"] - told["startup_seconds"]
    print(f"{told['steps']} steps of {asked.workers} workers in {steps:.1f} s; they spent {told['times']}")


def measured(command: str, *arguments: object, rows: int | None = None) -> str:
    """Run a command, print its time and memory, and return what it printed."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlless", command, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    own, others = 0, 0
    while process.poll() is None:
        own = max(own, peak(process.pid))
        others = max([others, *(peak(child) for child in descendants(process.pid))])
        time.sleep(PAUSE)
    seconds = time.perf_counter() - started
    assert process.stdout is not None
    printed = process.stdout.read()
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    rows = rows or (json.loads(printed)["rows"] if printed.startswith("{") else None)
    speed = f", {rows / seconds:,.0f} rows/s" if rows else ""
    more = f", largest of its processes {others >> 20} MiB" if others else ""
    print(f"{command:11}{seconds:7.1f} s{speed}, peak {own >> 20} MiB{more}", flush=True)
    return printed


def peak(process: int) -> int:
    """Return the peak of a process's resident memory in bytes, 0 if it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def descendants(process: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    found = []
    for tasks in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += [int(child) for child in tasks.read_text().split()]
        except OSError:
            continue
    return found + [other for child in found for other in descendants(child)]


if __name__ == "__main__":
    main()
