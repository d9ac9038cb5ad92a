"""Training from programs: without a main guard, from standard input, and the demo's way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import mlless
run = mlless.train(sys.argv[1], out=sys.argv[2], workers=2, epochs=1, verbose=False)
assert run.model().predict_ratings([1], [1]).shape == (1,)
print("workers:", len({one.pid for one in run.summary.workers}), "steps:", len(run.history()))
"""


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_training_needs_no_main_guard(ratings, tmp_path, way):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script if way == "file" else "-", ratings.dataset, tmp_path / "run"],
        input=SCRIPT if way == "stdin" else "",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "workers: 2 steps: 86\n"


def test_help_is_quick(command):
    """Nothing that only some commands need is imported for the help."""
    code = (
        "import sys\nsys.argv = ['mlless', '--help']\nfrom mlless.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('numpy', 'safetensors', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_demo_runs_to_its_end(tmp_path):
    demo = Path(__file__).parents[2] / "examples" / "demo.py"
    done = subprocess.run(
        [sys.executable, str(demo)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Done in" in done.stdout
    assert (tmp_path / "demo" / "isp" / "model.safetensors").exists()
