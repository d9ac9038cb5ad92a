"""Systems side by side, as a user asks for it: in turns, resumed after a kill, with a table and a page."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

ARGUMENTS = (
    "--workers", 2, "--epochs", 2, "--batch-size", 600, "--repetitions", 2,
    "--systems", "mlless-bsp,pywren-updates,pywren",
)  # fmt: skip


@pytest.fixture(scope="module")
def compared(mlless, ratings, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("compared") / "out"
    done = mlless("compare", ratings.dataset, *ARGUMENTS, "--tariff", "aws-lambda-x86", "--out", out)
    return out, done.stdout


def test_the_table_has_a_line_a_system(compared) -> None:
    _, printed = compared
    head, *lines = printed.splitlines()
    assert head.split()[:4] == ["runs", "time", "to", "rmse"]
    assert "money to rmse" in head
    assert {line.split()[0] for line in lines[:3]} == {"mlless-bsp", "pywren-updates", "pywren"}
    assert any(line.startswith("result    quickest: mlless-bsp") for line in lines)
    assert any(line.startswith("result    cheapest: mlless-bsp") for line in lines)


def test_all_trained_the_same_job(compared) -> None:
    out, _ = compared
    lines = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
    assert len(lines) == 6
    by_name = {(line["contestant"], line["repetition"]): line for line in lines}
    assert {line["steps"] for line in lines} == {lines[0]["steps"]}
    values = {name: float(line["value"]) for name, line in by_name.items()}
    assert values["mlless-bsp", "1"] == pytest.approx(values["pywren-updates", "2"], rel=1e-6)
    assert values["mlless-bsp", "1"] == values["mlless-bsp", "2"]
    for line in lines:
        assert float(line["cpu_seconds"]) > 0
        assert float(line["dollars"]) > 0
        assert int(line["peak_memory"]) > 0
        assert json.loads((Path(line["run"]) / "summary.json").read_text())["steps"] == int(line["steps"])
    stand = json.loads((out / "comparison.json").read_text())
    assert stand["metric"] == "rmse"
    assert sum(map(len, stand["outcomes"].values())) == 6


def test_the_page_opens_with_the_comparison(compared) -> None:
    out, _ = compared
    page = (out / "report" / "index.html").read_text()
    assert page.index("Who is the quickest") < page.index("At a glance")
    for name in ("mlless-bsp", "pywren-updates", "pywren"):
        assert name in page


def test_the_same_command_makes_no_run_twice(mlless, compared, ratings) -> None:
    out, printed = compared
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")}
    again = mlless("compare", ratings.dataset, *ARGUMENTS, "--tariff", "aws-lambda-x86", "--out", out)
    assert again.stdout == printed
    assert "repetition" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/summary.json")} == before
    other = mlless("compare", ratings.dataset, "--factors", 3, *ARGUMENTS, "--out", out, code=2)
    assert "another comparison is here" in other.stderr


def test_a_comparison_that_was_killed_is_gone_on_with(
    mlless, command, ratings, tmp_path: Path, channels: Path
) -> None:
    arguments = ["compare", ratings.dataset, *ARGUMENTS, "--epochs", 40, "--out", tmp_path / "out"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLLESS_CHANNEL_DIR": str(channels)},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("run 2 of 6: pywren-updates, repetition 1 of 2 ..."):
            break
    running = tmp_path / "out" / "runs" / "pywren-updates-1"
    deadline = time.monotonic() + 60
    while not ((running / "history.jsonl").exists() and (running / "history.jsonl").stat().st_size):
        assert time.monotonic() < deadline  # who is interrupted before its first step has failed
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    while (reason := json.loads((running / "summary.json").read_text())["stop_reason"]) == "running":
        assert time.monotonic() < deadline  # it ends without its parent
        time.sleep(0.01)
    assert reason == "interrupted"
    while any(channels.iterdir()) or (running / "job.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first = (tmp_path / "out" / "runs" / "mlless-bsp-1" / "summary.json").read_bytes()
    arguments[arguments.index("--systems") + 1] = "mlless-bsp,pywren-updates"
    arguments[arguments.index("--repetitions") + 1] = 1
    done = mlless(*arguments)
    assert "run 1 of 2" not in done.stderr
    (line,) = re.findall(r"^run 2 of 2: pywren-updates: (.*)$", done.stderr, re.MULTILINE)
    assert re.fullmatch(
        r"rmse 0\.\d{4} in .* s, 40 passes over the data, ended by epochs; that was the last", line
    )
    assert (tmp_path / "out" / "runs" / "mlless-bsp-1" / "summary.json").read_bytes() == first


def test_a_system_that_fails_does_not_end_the_others(mlless, ratings, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        '[fine]\nsystem = "mlless-bsp"\n'
        '[broke]\nsystem = "mlless-bsp"\ntariff = "aws-lambda-x86"\nmax_cost = 1e-9\n'
    )
    done = mlless(
        "compare", ratings.dataset, "--plan", plan, "--workers", 2, "--epochs", 1, "--repetitions", 1,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert "note      broke, repetition 1: the budget is below the minimum charge" in done.stdout
    assert "quickest: fine" in done.stdout


def test_in_a_virtual_world_times_are_virtual_and_the_same_again(mlless, ratings, tmp_path) -> None:
    text = mlless("world", "lan").stdout.replace("median = 0.5", "median = 60")
    (tmp_path / "slow.toml").write_text(text[: text.index("[machines]")])

    def compare(world: str, out: str, *more: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        what = ("--workers", 2, "--epochs", 1, "--batch-size", 600, "--systems", "mlless-isp,pytorch", *more)
        where = ("--world", world, "--out", out)
        return mlless("compare", ratings.dataset, *what, *where, cwd=tmp_path, code=code)

    first, second = compare("slow.toml", "one"), compare("slow.toml", "two")
    assert first.stdout.splitlines()[:2] == second.stdout.splitlines()[:2]
    assert "left out pytorch: the world Machines of one rack has no machines that reach one" in first.stderr
    assert "of virtual time" in first.stderr
    assert "times and money are virtual, those of the world" in first.stdout
    (line,) = csv.DictReader((tmp_path / "one/comparison.csv").read_text().splitlines())
    assert float(line["seconds"]) > 40  # of which functions take most to start
    assert "another comparison is here" in compare("lan", "one", code=2).stderr
    there = compare("lan", "three", "--store", "redis://there", code=2)
    assert "a world has a store of its own" in there.stderr


@pytest.mark.slow
def test_an_experiment_of_the_package(mlless, tmp_path) -> None:
    """All jobs at a small scale: ratios beside published ones, a page, and no run twice."""
    what = ("compare", "--plan", "middleware21-figure6", "--scale", 0.05, "--out", tmp_path / "out")
    small = ("--workers", 2, "--max-time", 10, "--systems", "bsp,isp")
    wrong = mlless(*what, "--data", "ml-10m=there", code=2)
    assert "no such job: ml-10m" in wrong.stderr
    assert "no such contestant: pytorh" in mlless(*what, "--systems", "pytorh", code=2).stderr
    done = mlless(*what, *small, timeout=600)
    assert "PyWren's standstill" in done.stdout
    assert "(published 1.03)" in done.stdout
    found = json.loads((tmp_path / "out" / "middleware21-figure6.json").read_text())
    assert set(found["losses"]) == {"lr-criteo", "mf-ml-10m", "mf-ml-20m"}
    for of in found["losses"].values():
        assert list(of) == ["bsp", "isp"]
        assert of["bsp"][0]["published"] > of["bsp"][-1]["published"]
    quicker = found["ratios"]["ISP before BSP: time to the last loss of BSP"]
    assert all(one["here"] is not None for one in quicker.values())
    page = (tmp_path / "out" / "middleware21-figure6" / "index.html").read_text()
    for told in ("figure 6", "Logistic regression on clicks", "as published"):
        assert told in page
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/runs/*/summary.json")}
    assert len(before) == 6
    again = mlless(*what, *small)
    assert again.stdout == done.stdout
    other = mlless("compare", "--plan", "middleware21-figure7", *what[3:], *small)
    assert "money to that loss" in other.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_example_compares_on_files_of_ratings_and_of_clicks(
    ratings, clicks, command, tmp_path: Path
) -> None:
    script = Path(__file__).parents[2] / "examples" / "compare.sh"
    program = tmp_path / "mlless"
    program.write_text("#!/bin/sh\nexec " + " ".join(command) + ' "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [script, ratings.raw, clicks.raw],
        env={
            **os.environ,
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "OUT": str(tmp_path / "out"),
            "SYSTEMS": "mlless-alone",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "MADE UP" not in done.stdout
    assert done.stdout.count("quickest: mlless-alone") == 2
