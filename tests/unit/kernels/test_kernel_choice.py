"""Which kernels are used: the compiled ones unless they are missing or not wanted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mlless
from mlless import kernels
from mlless.kernels import twin

MISSING = "import sys; sys.modules['mlless.kernels.native'] = None; "
FAILURE = "command 'gcc' failed\nnative.c:19:10: fatal error: Python.h: No such file or directory"
SAY = "from mlless import kernels; print(kernels.NAME)"


def said(code: str, *options: str, wish: str | None = None) -> str:
    """Return what a new Python says, asked with MLLESS_KERNELS set or not."""
    environment = {name: value for name, value in os.environ.items() if name != "MLLESS_KERNELS"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    if wish is not None:
        environment["MLLESS_KERNELS"] = wish
    done = subprocess.run(
        [sys.executable, *options, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return (done.stdout + done.stderr).strip()


def test_the_compiled_kernels_are_used_where_they_are(native: ModuleType) -> None:
    assert said(SAY) == "native"
    assert said(SAY, wish="native") == "native"


def test_the_twin_can_be_wished_for_without_a_warning() -> None:
    assert said(SAY, "-W", "error", wish="numpy") == "numpy"


def test_where_they_are_missing_the_twin_stands_in_with_one_warning() -> None:
    text = said(MISSING + SAY)
    assert text.startswith("numpy")
    assert text.count("RuntimeWarning") == 1
    assert "without its compiled kernels" in text
    assert "Install gcc or clang" in text


def test_those_of_another_release_are_not_used() -> None:
    other = "import sys, types; sys.modules['mlless.kernels.native'] = types.ModuleType('native'); "
    text = said(other + SAY)
    assert text.startswith("numpy")
    assert "they are of another release, without add_update, " in text


@pytest.fixture
def unbuilt(tmp_path: Path) -> Path:
    """A copy of the package whose kernels could not be compiled."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    package = shutil.copytree(Path(mlless.__file__).parent, tmp_path / "mlless", ignore=ignored)
    (package / "kernels/build_failure.txt").write_text(FAILURE)
    return tmp_path


def test_why_they_could_not_be_compiled_is_quoted(unbuilt: Path) -> None:
    text = said(f"import sys; sys.path.insert(0, {str(unbuilt)!r}); {SAY}")
    assert text.startswith("numpy")
    assert FAILURE in text


def test_the_doctor_tells_it(unbuilt: Path) -> None:
    doctor = "sys.argv = ['mlless', 'doctor', '--workers', '1']; from mlless.cli import main; main()"
    text = said(f"import sys; sys.path.insert(0, {str(unbuilt)!r}); {doctor}", "-W", "ignore")
    assert "! kernels    not compiled" in text
    assert FAILURE in text
    assert "Install gcc or clang" in text


@pytest.mark.parametrize("name", [name for name in kernels.__all__ if name.islower()])
def test_both_have_every_function(native: ModuleType, name: str) -> None:
    assert callable(getattr(native, name))
    assert getattr(kernels, name) in (getattr(native, name), getattr(twin, name))
