"""Every example of the how-to pages, as typed by a new user: a page from top to bottom in an empty folder.

A block marked ``sh`` runs in a shell that stops at the first failure, one marked ``python`` as a script; one
marked ``toml`` becomes the settings file.
The network is a server of this machine.
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

DOCS = Path(__file__).parents[2] / "docs"
_MORE = [DOCS / "comparison.md", DOCS / "configuration.md"]
PAGES = sorted(path.name for path in [*DOCS.glob("howto-*.md"), *_MORE])
BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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


@pytest.mark.parametrize("page", PAGES)
def test_every_example_runs(page, environment, tmp_path, request):
    folder = tmp_path / "folder"
    folder.mkdir()
    content = (DOCS / page).read_text()
    if "s3://" in content:
        environment |= request.getfixturevalue("s3_server").environment
    blocks = BLOCK.findall(content)
    assert blocks
    for language, text in blocks:
        if language == "toml":
            (folder / "mlless.toml").write_text(text)
            continue
        command = ["sh", "-eu"] if language == "sh" else [sys.executable, "-"]
        done = subprocess.run(
            command, input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (page, text, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


def test_the_settings_shown_are_what_config_prints(environment, tmp_path):
    """The page of settings shows some lines of what its own example prints."""
    text = (DOCS / "configuration.md").read_text()
    (tmp_path / "mlless.toml").write_text(
        next(block for kind, block in BLOCK.findall(text) if kind == "toml")
    )
    done = subprocess.run(
        ["sh", "-c", "MLLESS_WORKERS=3 mlless config --epochs 2"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    shown = re.search(r"says among others\n\n```\n(.*?)```", text, re.DOTALL)
    assert shown
    told = {" ".join(line.split()) for line in done.stdout.splitlines()}  # how wide it is follows from all
    assert {" ".join(line.split()) for line in shown[1].splitlines()} <= told


def test_links_between_pages_lead_somewhere():
    for page in DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
