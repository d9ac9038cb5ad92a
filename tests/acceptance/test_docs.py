"""Every example of the site and of the README, as typed by a new user.

A page runs from top to bottom in an empty folder. A block marked ``sh`` runs in a shell that stops at the
first failure, one marked ``python`` as a script. One marked ``toml`` becomes the file that the line before it
names. Blocks marked ``console`` or ``text`` are only shown: they need a cloud or another machine. The network
is a server of this machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from publisher import publisher

import mlless
from mlless.data.synthetic import write_ratings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(?:`([\w.-]+)`:\n\n)?^```(sh|python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"docs/howto/estimators.md"}  # a test of the estimators runs it, in one process
PAGES = sorted(
    name
    for path in [ROOT / "README.md", *DOCS.rglob("*.md")]
    if BLOCK.search(path.read_text()) and (name := str(path.relative_to(ROOT))) not in ELSEWHERE
)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Return variables with which ``mlless`` is this one, and the publisher one of this machine."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "mlless").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlless "$@"\n')
    (programs / "mlless").chmod(0o755)
    write_ratings(tmp_path / "ratings.csv", users=60, items=50, rows=1500)
    with publisher() as published:
        members = {
            f"ml-latest-small/{name}": (tmp_path / "ratings.csv").read_bytes()
            for name in ("ratings.csv", "README.txt")
        }
        published.publish("ml-latest-small", members)
        yield {
            **os.environ,
            "PYTHONPATH": str(Path(mlless.__file__).parents[1]),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "MLLESS_MOVIELENS_URL": published.url,
            "no_proxy": "127.0.0.1",
        }


def test_no_page_with_examples_is_left_out():
    assert {"README.md", "docs/start.md", "docs/howto/clicks.md", "docs/reference/options.md"} - {*PAGES} == {
        "docs/reference/options.md"
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_example_runs(page, environment, tmp_path, request):
    folder = tmp_path / "folder"
    folder.mkdir()
    content = (ROOT / page).read_text()
    if "s3://" in content:
        environment |= request.getfixturevalue("s3_server").environment
    blocks = BLOCK.findall(content)
    assert blocks
    for name, language, text in blocks:
        if language == "toml":
            assert name, (page, text)
            (folder / name).write_text(text)
            continue
        command = ["sh", "-eu"] if language == "sh" else [sys.executable, "-"]
        done = subprocess.run(
            command, input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, (page, text, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


def test_the_settings_shown_are_what_config_prints(environment, tmp_path):
    """The page of settings shows some lines of what its own example prints."""
    text = (DOCS / "howto" / "settings.md").read_text()
    (tmp_path / "mlless.toml").write_text(
        next(block for _, kind, block in BLOCK.findall(text) if kind == "toml")
    )
    done = subprocess.run(
        ["sh", "-c", "MLLESS_WORKERS=3 mlless config --epochs 2"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    shown = re.search(r"these lines among others:\n\n```\n(.*?)```", text, re.DOTALL)
    assert shown
    told = {" ".join(line.split()) for line in done.stdout.splitlines()}  # how wide it is follows from all
    assert {" ".join(line.split()) for line in shown[1].splitlines()} <= told
