"""What a person sees on a terminal."""

from __future__ import annotations

import os
import subprocess

import pytest

pty = pytest.importorskip("pty")


def _on_a_terminal(arguments) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code and all that it drew."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        list(map(str, arguments)), stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    drawn = b""
    try:
        while more := os.read(ours, 1 << 16):
            drawn += more
    except OSError:
        pass  # how Linux says that no one is left on the other side
    finally:
        os.close(ours)
    return process.wait(60), drawn.decode()


def test_training_is_shown_as_it_goes(command, clicks, tmp_path):
    code, drawn = _on_a_terminal(
        [*command, "train", clicks.dataset, "--workers", 2, "--epochs", 1000000, "--max-time", 5,
         "--out", tmp_path / "run"]
    )  # fmt: skip
    assert code == 0
    for words in (
        "training",
        "of at most 1000000",
        "steps/s",
        "best",
        "published",
        "Ctrl-C",
        "no time for another step",
    ):
        assert words in drawn
    assert drawn.rstrip().endswith(f"mlless predict {tmp_path / 'run'} FILE\x1b[0m")
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1  # the cursor was hidden and is back


def test_partition_shows_a_bar_and_leaves_none_behind(command, ratings, tmp_path):
    code, drawn = _on_a_terminal([*command, "partition", ratings.raw, tmp_path / "data"])
    assert code == 0
    assert "12,000 ratings" in drawn
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h")
