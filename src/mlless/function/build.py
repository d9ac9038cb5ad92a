"""Writes the files from which the runtime of functions is built.

Two forms: a Dockerfile for one of Lithops' backends, and a folder of packages for a plain handler of AWS
Lambda, ``mlless.launch.handler``. Both hold what a worker needs and no more.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from py_compile import PycInvalidationMode
from string import Template

import mlless
from mlless.data.staging import writing
from mlless.errors import JobError, UsageError
from mlless.function.backends import BACKENDS, Backend

PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # that both AWS Lambda and mlless know
PACKAGE = "package"
_HANDLER = (
    "COPY {archive} .\nRUN python -m zipfile -e {archive} /function\n"  # Lithops puts it there to build
)
_REQUIREMENTS = "requirements.txt"
_SOURCE = "mlless"
# What mlless requires for the command line and for reading raw files, and a worker never imports.
_NOT_FOR_WORKERS = ("pyarrow", "rich", "typer")
_CODE = Path(mlless.__file__).resolve().parent
_PATIENCE = ("--timeout=20", "--retries=3", "--no-input")  # with an index that does not answer
_DEADLINE = 900  # seconds for all packages
_LINUX = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# Tests of other packages and the second of two bindings, a fifth of the size, are never imported.
_SUPERFLUOUS = ("numpy/**/tests", "zstandard/_cffi*", "bin", "**/__pycache__")


def build(
    dest: Path,
    python: str,
    backend: str = "aws_lambda",
    *,
    package: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write what a backend is to run into the folder ``dest``; return the files and folders written.

    ``python`` is the version in the cloud, which Lithops wants to be that of the driver. With
    ``package`` the packages themselves are installed into the folder ``package``, instead of a
    Dockerfile that would.
    """
    if python not in PYTHONS:
        raise UsageError(
            "there is no such Python for functions of mlless", expected=", ".join(PYTHONS), found=python
        )
    if package:
        if backend != "aws_lambda":
            raise UsageError(
                "a folder of packages is for AWS Lambda alone", found=backend, cure="leave out --package"
            )
        _machine()
    written = [dest / _REQUIREMENTS]
    written += (
        [dest / PACKAGE]
        if package
        else [
            dest / "lithops-requirements.txt",
            dest / "Dockerfile",
            dest / _SOURCE,
        ]
    )
    if any(_CODE.is_relative_to(path.resolve()) for path in written):
        raise UsageError(
            "mlless itself is in this folder", where=str(dest.resolve()), cure="choose another folder"
        )
    taken = [path.name for path in written if path.exists()]
    if taken and not overwrite:
        raise UsageError(
            "files of a function exist already",
            where=str(dest),
            found=", ".join(taken),
            cure="choose another folder, or add --overwrite",
        )
    with writing(dest):
        for path in written:
            _remove(path)
        dest.mkdir(parents=True, exist_ok=True)
        _write(dest / _REQUIREMENTS, worker_requirements())
        if package:
            try:
                _install(dest / PACKAGE, dest / _REQUIREMENTS, python)
            except BaseException:
                _remove(dest / PACKAGE)
                raise
        else:
            chosen = BACKENDS[backend]
            _write(dest / "lithops-requirements.txt", map(_pinned, sorted(chosen.packages)))
            _write_dockerfile(dest, python, chosen)
    return written


def worker_requirements() -> list[str]:
    """Return what a worker needs beside mlless, at the versions that the driver has."""
    required: list[str] = tomllib.loads(_project("pyproject.toml").read_text())["project"]["dependencies"]
    return sorted(_pinned(line) for line in required if not line.startswith(_NOT_FOR_WORKERS))


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _pinned(requirement: str) -> str:
    """Return a requirement at the version that is installed here; as it is where none is."""
    found = re.match(r"[\w.-]+(\[[\w,-]+\])?", requirement)
    assert found, requirement
    name = found[0].split("[")[0]
    try:
        return f"{found[0]}=={importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return requirement


def _write_dockerfile(dest: Path, python: str, backend: Backend) -> None:
    # Compiled while the image is built: for its processor, whatever this machine is.
    _copy_source(dest / _SOURCE)
    template = Template((files("mlless.function") / "Dockerfile").read_text())
    text = template.substitute(
        version=mlless.__version__,
        where=backend.where,
        built=backend.built.format(name=runtime_name(python)),
        python=python,
        source=_SOURCE,
        handler=_HANDLER.format(archive=backend.archive) if backend.archive else "",
        start=backend.start,
    )
    (dest / "Dockerfile").write_text(text)


def runtime_name(python: str) -> str:
    """Return what to call the runtime in Lithops' configuration."""
    return f"mlless-{mlless.__version__}-py{python}".replace(".", "")


def _project(name: str) -> Path:
    """Return a file that lies beside the code in a source tree: that of the checkout, or the wheel's copy."""
    for folder in (_CODE / "function" / "project", _CODE.parents[1]):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(
        "this mlless cannot be built for functions: a file is missing",
        where=str(_CODE),
        expected=name,
        cure="install mlless from a wheel or a checkout",
    )


def _copy_source(dest: Path) -> None:
    """Make a source tree of the mlless that runs: an index could hand out another one of that name."""
    dest.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(_project(name), dest / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "project", "build_failure.txt")
    shutil.copytree(_CODE, dest / "src" / "mlless", ignore=ignored)


def _machine() -> str:
    """Return the processor that packages installed on this machine are for."""
    machine = _LINUX.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        raise UsageError(
            "the packages of a function hold compiled code of Linux",
            found=f"{sys.platform} on {platform.machine()}",
            cure="leave out --package: the Dockerfile installs them for Linux on any machine",
        )
    return machine


def _install(folder: Path, requirements: Path, python: str) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine = _machine()
    target = ["--target", str(folder), "--no-compile"]
    foreign = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    foreign += [f"--platform=manylinux_2_28_{machine}", f"--platform=manylinux2014_{machine}"]
    _pip("install", *target, *foreign, "-r", str(requirements))
    shutil.copytree(_CODE, folder / "mlless", ignore=shutil.ignore_patterns("__pycache__"))
    for pattern in _SUPERFLUOUS:
        for path in list(folder.glob(pattern)):
            _remove(path)
    if python == here:
        # A function's disk is read-only: without these files every cold start compiles all it imports.
        mode = PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(folder, quiet=2, invalidation_mode=mode)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *_PATIENCE, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_DEADLINE)
    except subprocess.TimeoutExpired as error:
        raise JobError(
            "cannot install the worker's packages",
            found=f"pip that had not ended after {_DEADLINE} seconds",
            cure=f"see whether the package index answers, or try it yourself: {' '.join(command)}",
        ) from error
    if done.returncode:
        raise JobError(
            "cannot install the worker's packages",
            found=" ".join(re.findall(r"^ERROR: (.*)$", done.stderr, re.MULTILINE))
            or done.stderr.strip()[-2000:]
            or f"exit code {done.returncode}",
            cure=f"try it yourself: {' '.join(command)}",
        )


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
