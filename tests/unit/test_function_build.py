"""What ``mlless function build`` writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mlless.errors import ChannelError, JobError, UsageError
from mlless.function import build as module
from mlless.function.build import build, worker_requirements

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


def test_the_source_is_found_where_mlless_was_installed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "a checkout"
    (checkout / "src/mlless").mkdir(parents=True)
    (checkout / "setup.py").touch()
    told = json.dumps({"url": checkout.as_uri(), "dir_info": {}})
    monkeypatch.setattr(module.mlless, "__file__", str(tmp_path / "lib/site-packages/mlless/__init__.py"))
    monkeypatch.setattr(module.importlib.metadata.PathDistribution, "read_text", lambda self, name: told)
    assert module._checkout() == checkout
    monkeypatch.setattr(module.importlib.metadata.PathDistribution, "read_text", lambda self, name: None)
    assert module._checkout() is None


def test_what_cannot_be_installed_leaves_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, requirements: Path, python: str) -> None:
        (folder / "half").mkdir(parents=True)
        raise JobError("cannot install")

    monkeypatch.setattr(module, "_machine", lambda: "x86_64")
    monkeypatch.setattr(module, "_install", fail)
    with pytest.raises(JobError):
        build(tmp_path, "3.12", package=True)
    assert not (tmp_path / "package").exists()


def test_an_installed_release_is_named_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_checkout", lambda: None)
    assert [path.name for path in build(tmp_path, "3.11")] == [
        "requirements.txt",
        "lithops-requirements.txt",
        "Dockerfile",
    ]
    assert re.search(r"pip install .* mlless==\d", (tmp_path / "Dockerfile").read_text())


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ChannelError, match=r"below: cannot write: .*choose another folder"):
        build(tmp_path / "file" / "below", "3.12")


def test_mlless_itself_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a checkout lies in the folder in which the command runs."""
    program = tmp_path / "mlless" / "src" / "mlless" / "__init__.py"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr("mlless.__file__", str(program))
    monkeypatch.setattr(module, "_checkout", lambda: tmp_path / "mlless")
    with pytest.raises(UsageError, match="mlless itself is in this folder"):
        build(tmp_path, "3.12", overwrite=True)
    assert program.exists()


def test_what_is_there_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("mine")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UsageError, match=r"exist already: found Dockerfile.*--overwrite"):
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
    with pytest.raises(UsageError, match="Leave out --package"):
        build(tmp_path / "deploy", "3.12", package=True)
    assert not (tmp_path / "deploy").exists()
