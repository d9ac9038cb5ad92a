"""What bash completes, by the script that the command line gives it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ASK = """
eval "$(_MLLESS_COMPLETE=source_bash mlless)"
COMP_WORDS=({words} {last}); COMP_CWORD={position}
$(complete -p mlless | sed 's/.*-F \\([^ ]*\\).*/\\1/') mlless
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def completed(tmp_path):
    """Return what bash makes of a command that ends in half a word, in a folder of the test's own."""
    bash = shutil.which("bash") or pytest.skip("bash is not on this machine")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "mlless").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mlless "$@"\n')
    (programs / "mlless").chmod(0o755)

    def ask(*words: str) -> list[str]:
        *before, last = words
        script = _ASK.format(
            words=shlex.join(["mlless", *before]), last=shlex.quote(last), position=len(words)
        )
        done = subprocess.run(
            [bash, "--norc", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60.0,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return ask


def test_commands_and_options(completed):
    assert completed("sta") == ["status"]
    assert completed("train", "--patience") == ["--patience", "--patience-channel"]


def test_choices_and_names(completed):
    assert completed("train", "data", "--pattern", "") == ["auto", "broadcast", "allreduce", "scatter"]
    assert completed("train", "data", "--tariff", "aws-lambda-x") == ["aws-lambda-x86"]
    assert completed("tariff", "aws-lambda-x") == ["aws-lambda-x86"]
    assert "aws-lambda" in completed("world", "aws")


def test_runs_and_data_sets(completed, tmp_path: Path):
    for folder, file in (
        ("runs/first", "summary.json"),
        ("runs/second", "job.json"),
        ("runs/none", "model.txt"),
        ("data/ratings", "manifest.json"),
        ("data/.hidden", "manifest.json"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / file).touch()
    assert completed("status", "") == ["runs/first", "runs/second"]
    assert completed("status", "runs/f") == ["runs/first"]
    assert completed("status", f"{tmp_path}/ru") == [f"{tmp_path}/runs/first", f"{tmp_path}/runs/second"]
    assert completed("train", "da") == ["data/ratings"]
    assert completed("evaluate", "runs/first", "data/") == ["data/ratings"]
