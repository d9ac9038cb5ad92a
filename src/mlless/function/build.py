"""Writes the files from which the runtime of functions is built.

Two forms: a Dockerfile for Lithops' backend ``aws_lambda``, and a folder of packages for a plain
handler, ``mlless.launch.handler``. Both hold what a worker needs and no more.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from py_compile import PycInvalidationMode
from string import Template
from urllib.parse import unquote, urlsplit

import mlless
from mlless.data.staging import writing
from mlless.errors import JobError, UsageError

PYTHONS = ("3.11", "3.12", "3.13", "3.14")  # that both AWS Lambda and mlless know
PACKAGE = "package"
_REQUIREMENTS = "requirements.txt"
_SOURCE = "mlless"
# What Lithops' own handler imports, beside what a worker has anyway.
_LITHOPS = ("awslambdaric", "boto3", "cloudpickle", "pika", "ps-mem", "psutil", "requests", "six", "tblib")
# What mlless requires for the command line and for reading raw files, and a worker never imports.
_NOT_FOR_WORKERS = ("pyarrow", "rich", "typer")
_INSTALL = "pip install --no-cache-dir --no-deps --target /function"
_LINUX = {"x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# Tests of other packages and the second of two bindings, a fifth of the size, are never imported.
_SUPERFLUOUS = ("numpy/**/tests", "zstandard/_cffi*", "bin", "**/__pycache__")


def build(dest: Path, python: str, *, package: bool = False, overwrite: bool = False) -> list[Path]:
    """Write what AWS Lambda is to run into the folder ``dest``; return the files and folders written.

    ``python`` is the version in the cloud, which Lithops wants to be that of the driver. With
    ``package`` the packages themselves are installed into the folder ``package``, instead of a
    Dockerfile that would.
    """
    if python not in PYTHONS:
        raise UsageError(
            "AWS Lambda has no such Python for mlless", expected=", ".join(PYTHONS), found=python
        )
    if package:
        _machine()
    written = [dest / _REQUIREMENTS]
    written += [dest / PACKAGE] if package else [dest / "lithops-requirements.txt", dest / "Dockerfile"]
    if not package and _checkout():
        written.append(dest / _SOURCE)
    running = Path(mlless.__file__).resolve()
    if any(running.is_relative_to(path.resolve()) for path in written):
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
            _write(dest / "lithops-requirements.txt", map(_pinned, _LITHOPS))
            _write_dockerfile(dest, python)
    return written


def worker_requirements() -> list[str]:
    """Return what a worker needs beside mlless, at the versions that the driver has."""
    if source := _checkout():
        project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
        required: list[str] = project["dependencies"]
    else:
        required = importlib.metadata.requires("mlless") or []
    return sorted(
        _pinned(line) for line in required if "extra ==" not in line and not line.startswith(_NOT_FOR_WORKERS)
    )


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


def _checkout() -> Path | None:
    """Return the source tree that this mlless runs from, or was installed from (PEP 610), if there is one."""
    for root in (Path(mlless.__file__).parents[2], _installed_from()):
        if root and (root / "setup.py").is_file() and (root / "src" / "mlless").is_dir():
            return root
    return None


def _installed_from() -> Path | None:
    try:
        told = importlib.metadata.distribution("mlless").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    url = urlsplit(json.loads(told)["url"] if told else "")
    return Path(unquote(url.path)) if url.scheme == "file" else None


def _write_dockerfile(dest: Path, python: str) -> None:
    if source := _checkout():
        # Compiled while the image is built: for its processor, whatever this machine is.
        _copy_source(source, dest / _SOURCE)
        install = f"COPY {_SOURCE} /{_SOURCE}\nRUN {_INSTALL} /{_SOURCE}"
    else:
        install = f"RUN {_INSTALL} mlless=={mlless.__version__}"
    template = Template((files("mlless.function") / "Dockerfile").read_text())
    text = template.substitute(
        version=mlless.__version__, python=python, install=install, name=runtime_name(python)
    )
    (dest / "Dockerfile").write_text(text)


def runtime_name(python: str) -> str:
    """Return what to call the runtime in Lithops' configuration."""
    return f"mlless-{mlless.__version__}-py{python}".replace(".", "")


def _copy_source(source: Path, dest: Path) -> None:
    dest.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(source / name, dest / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    shutil.copytree(source / "src", dest / "src", ignore=ignored)


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
    if source := _checkout():
        with tempfile.TemporaryDirectory(prefix="mlless-") as copy:  # a build leaves its traces there
            _copy_source(source, Path(copy) / _SOURCE)
            _pip("install", *target, "--no-deps", "--upgrade", f"{copy}/{_SOURCE}")
    else:
        _pip("install", *target, *foreign, "--no-deps", "--upgrade", f"mlless=={mlless.__version__}")
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
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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
