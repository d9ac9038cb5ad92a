"""What ``mlless function build`` writes."""

from __future__ import annotations

import re
import runpy
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from mlless.errors import ChannelError, JobError, UsageError
from mlless.function import build as module
from mlless.function.backends import BACKENDS
from mlless.function.build import build, worker_requirements

PROJECT = {"pyproject.toml", "setup.py", "README.md", "LICENSE"}
HEAVY = re.compile(r"scipy|scikit|pandas|pyarrow|typer|rich|matplotlib|lithops", re.IGNORECASE)


def test_the_dockerfile_holds_the_worker_and_its_dependencies_alone(tmp_path: Path) -> None:
    written = build(tmp_path / "deploy", "3.12")
    assert sorted(path.name for path in written) == sorted(
        path.name for path in (tmp_path / "deploy").iterdir()
    )
    requirements = (tmp_path / "deploy/requirements.txt").read_text().splitlines()
    assert requirements == worker_requirements()
    assert any(line.startswith("numpy==") for line in requirements)
    assert any(line.startswith("redis[hiredis]==") for line in requirements)
    assert not any(HEAVY.search(line) for line in requirements)
    assert "cloudpickle==" in (tmp_path / "deploy/lithops-requirements.txt").read_text()
    dockerfile = (tmp_path / "deploy/Dockerfile").read_text()
    assert dockerfile.count("FROM python:3.12-slim") == 2
    assert "$" not in dockerfile
    assert "COPY lithops_lambda.zip" in dockerfile
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE):
        for name in copied.split():
            assert name == "lithops_lambda.zip" or (tmp_path / "deploy" / name).exists()


def test_the_source_that_is_compiled_in_the_image_is_complete(tmp_path: Path) -> None:
    build(tmp_path, "3.12")
    names = {str(path.relative_to(tmp_path / "mlless")) for path in (tmp_path / "mlless").rglob("*")}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "src/mlless/kernels/native.c"} <= names
    assert not any(name.endswith((".so", ".pyc")) for name in names)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_has_its_image(tmp_path: Path, backend: str) -> None:
    build(tmp_path, "3.13", backend)
    dockerfile = (tmp_path / "Dockerfile").read_text()
    assert dockerfile.count("FROM python:3.13-slim") == 2
    assert BACKENDS[backend].start in dockerfile
    assert (BACKENDS[backend].archive or "lithops_") in dockerfile or backend == "localhost"
    assert "{" not in dockerfile
    requirements = (tmp_path / "lithops-requirements.txt").read_text()
    assert all(package in requirements for package in BACKENDS[backend].packages)


def test_a_package_is_for_one_cloud(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="AWS Lambda alone"):
        build(tmp_path, "3.12", "gcp_cloudrun", package=True)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mlless that was installed from a wheel, and no checkout around it."""
    code, project = tmp_path / "site-packages" / "mlless", tmp_path / "site-packages/mlless/function/project"
    shutil.copytree(module._CODE, code, ignore=shutil.ignore_patterns("__pycache__"))
    project.mkdir()
    for name in PROJECT:
        shutil.copy(Path(__file__).parents[2] / name, project)
    (code / "mark.py").write_text("# as it is installed here")
    monkeypatch.setattr(module, "_CODE", code)
    return code


def test_an_installed_release_is_its_own_source(tmp_path: Path, installed: Path) -> None:
    """Not what an index has under the name of mlless."""
    build(tmp_path / "deploy", "3.11")
    source = tmp_path / "deploy" / "mlless"
    assert sorted(path.name for path in source.iterdir()) == sorted([*PROJECT, "src"])
    assert (source / "src/mlless/mark.py").read_text() == "# as it is installed here"
    assert not (source / "src/mlless/function/project").exists()
    assert "mlless==" not in (tmp_path / "deploy" / "Dockerfile").read_text()
    assert not any("mlless" in line for line in worker_requirements())


def test_a_package_holds_the_mlless_that_runs_and_asks_no_index_for_it(
    tmp_path: Path, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "_machine", lambda: "x86_64")
    monkeypatch.setattr(module, "_pip", lambda *arguments: asked.append(arguments))
    build(tmp_path / "deploy", "3.12", package=True)
    assert (tmp_path / "deploy/package/mlless/mark.py").exists()
    assert {path.name for path in installed.glob("kernels/*")} - {"__pycache__"} == {
        path.name for path in (tmp_path / "deploy/package/mlless/kernels").iterdir()
    }
    assert len(asked) == 1
    assert not any("mlless" in Path(argument).name for argument in asked[0])


def test_a_mlless_without_its_project_is_told(installed: Path, tmp_path: Path) -> None:
    shutil.rmtree(installed / "function" / "project")
    with pytest.raises(UsageError, match=r"expected pyproject\.toml\. Install mlless from a wheel or"):
        build(tmp_path / "deploy", "3.12")


def test_setup_puts_into_a_wheel_what_a_source_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setuptools = pytest.importorskip("setuptools")
    told: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: told.update(arguments))
    monkeypatch.chdir(Path(__file__).parents[2])
    runpy.run_path("setup.py")
    command = setuptools.Distribution({"name": "mlless", **told}).get_command_obj("build_py")
    command.build_lib = str(tmp_path)
    command.ensure_finalized()
    command.run()
    assert {path.name for path in (tmp_path / "mlless/function/project").iterdir()} == PROJECT


def test_a_pip_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index listens and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        monkeypatch.setattr(module, "_machine", lambda: "x86_64")
        monkeypatch.setattr(module, "_DEADLINE", 2)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{index.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        with pytest.raises(JobError, match=r"pip that had not ended after 2 seconds.*--timeout=20"):
            build(tmp_path / "deploy", "3.12", package=True)
    assert not (tmp_path / "deploy/package").exists()


def test_what_cannot_be_installed_leaves_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, requirements: Path, python: str) -> None:
        (folder / "half").mkdir(parents=True)
        raise JobError("cannot install")

    monkeypatch.setattr(module, "_machine", lambda: "x86_64")
    monkeypatch.setattr(module, "_install", fail)
    with pytest.raises(JobError):
        build(tmp_path, "3.12", package=True)
    assert not (tmp_path / "package").exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ChannelError, match=r"below: cannot write: .*choose another folder"):
        build(tmp_path / "file" / "below", "3.12")


def test_mlless_itself_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a checkout lies in the folder in which the command runs."""
    program = tmp_path / "mlless" / "src" / "mlless" / "__init__.py"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr(module, "_CODE", program.parent)
    with pytest.raises(UsageError, match="mlless itself is in this folder"):
        build(tmp_path, "3.12", overwrite=True)
    assert program.exists()


def test_what_is_there_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("mine")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UsageError, match=r"exist already: found Dockerfile.*`overwrite`"):
        build(tmp_path, "3.12")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Dockerfile", "notes"]
    build(tmp_path, "3.12", overwrite=True)
    build(tmp_path, "3.12", overwrite=True)
    assert (tmp_path / "notes").read_text() == "mine"
    assert (tmp_path / "Dockerfile").read_text() != "mine"


def test_a_python_that_lambda_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected 3\.11, .*found 3\.9"):
        build(tmp_path / "deploy", "3.9")
    assert not (tmp_path / "deploy").exists()


def test_a_package_of_linux_is_not_made_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    with pytest.raises(UsageError, match="Leave out `package`"):
        build(tmp_path / "deploy", "3.12", package=True)
    assert not (tmp_path / "deploy").exists()
