"""An installed mlless as a user has it: the command line and a small training, with no checkout in the way.

    python tests/installed.py

It needs nothing but the package and what that requires. It ends with an error if the kernels are not the
compiled ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAM = Path(sysconfig.get_path("scripts")) / "mlless"
PATIENCE = 300  # seconds for one command
TREE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Try it in an empty folder."""
    with TemporaryDirectory() as folder:
        place = said(folder, sys.executable, "-c", "import mlless; print(mlless.__file__)").strip()
        if Path(place).is_relative_to(TREE / "src"):
            sys.exit(f"this tries an installed mlless, and {place} is the checkout's: install the wheel")
        name = "from mlless import kernels; print(kernels.NAME, kernels.MISSING)"
        if (kernels := said(folder, sys.executable, "-c", name).strip()) != "native":
            sys.exit(f"expected the compiled kernels, found {kernels}")
        assert "partition" in said(folder, PROGRAM, "--help")
        said(folder, PROGRAM, "synthesize", "ml-1m", "ratings.csv", "--rows", "20000")
        said(folder, PROGRAM, "partition", "ratings.csv", "data")
        rmse = {}
        for workers in ("1", "2"):  # in the process, and as functions of this machine
            run = f"run-{workers}"
            said(folder, PROGRAM, "train", "data", "--out", run, "--workers", workers, "--epochs", "3")
            scored = json.loads(said(folder, PROGRAM, "evaluate", run, "data", "--json"))
            rmse[workers] = scored["rmse"]
            assert 0 < rmse[workers] < 1.5, scored
    print(
        f"{said('.', PROGRAM, '--version').strip()} on Python {sys.version.split()[0]}: {place}, rmse {rmse}"
    )


def said(folder: str, *command: str | Path) -> str:
    """Return what the command prints; if it fails, end with what it said."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
