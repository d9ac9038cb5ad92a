"""What a killed driver comes to: SIGKILL at a moment that a seed draws, then ``mlless resume``.

    python benchmarks/resumes.py DATASET [--kills 20] [--workers 4 2 8] [--store URL] [--empty]

DATASET is one of ratings. The first number of workers trains, and resumes take the numbers in turn.
``--empty`` flushes the store, a Redis of one's own, before each resume. Printed are the held-out RMSE, its
difference to the undisturbed job, the step at which the driver was killed and the one from which the resume
went on. A job that is killed in its first half second may have no checkpoint yet; it is told.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_EPOCHS = 40  # enough that most kills come after the first checkpoint
_MOMENT = 0.002


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "mlless", *words, "--json"]


def _finish(words: list[str]) -> dict[str, Any]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return dict(json.loads(done.stdout))


def _steps(history: Path) -> list[int]:
    """Return the numbers of the steps that a history has; its last line may be half of one."""
    lines = history.read_text().splitlines() if history.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def _killed(words: list[str], history: Path, at: int) -> int:
    """Start a training and kill its driver once a step is in its history; return the last step there."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and max(_steps(history), default=-1) < at:
        time.sleep(_MOMENT)
    process.kill()
    if process.wait() == 0:
        raise SystemExit("the training ended before it was killed")
    return max(_steps(history))


def main() -> None:
    """Run the jobs and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, nargs="+", default=[4])
    parser.add_argument("--store", default="", help="URL; this machine's own channel if left out")
    parser.add_argument("--empty", action="store_true")
    asked = parser.parse_args()
    store = ["--store", asked.store] if asked.store else []
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        wishes = ["--workers", str(asked.workers[0]), "--epochs", str(_EPOCHS)]
        train = _command("train", asked.dataset, "--out", run, "--overwrite", *wishes, *store)
        calm = _finish(train)
        print("| seed | workers | killed after step | went on from | held-out RMSE | difference |")
        print("|---|---|---|---|---|---|")
        print(f"| none | {asked.workers[0]} | | | {calm['heldout']['rmse']:.4f} | |", flush=True)
        for seed in range(asked.kills):
            at = random.Random(seed).randrange(1, calm["steps"] * 9 // 10)
            history = Path(run) / "history.jsonl"
            history.unlink()
            last = _killed(train, history, at)
            if asked.empty:
                subprocess.run(["redis-cli", "-u", asked.store, "flushall"], check=True, capture_output=True)
            if not (Path(run) / "checkpoint.safetensors").exists():
                print(f"| {seed} | | {last} | no checkpoint yet | | |", flush=True)
                continue
            workers = asked.workers[seed % len(asked.workers)]
            ended = _finish(_command("resume", run, "--workers", str(workers), *store))
            lines = [json.loads(line) for line in history.read_text().splitlines()]
            back = [line["rewound_to"] for line in lines if line.get("rewound_to") is not None]
            rmse, before = ended["heldout"]["rmse"], calm["heldout"]["rmse"]
            print(
                f"| {seed} | {workers} | {last} | {back[-1] if back else ''} |"
                f" {rmse:.4f} | {rmse - before:+.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
