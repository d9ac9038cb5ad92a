"""What function build writes, made without Docker: line by line, for a Python of its own.

It shows that all is there that a function imports, and that it starts by the image's own command. It does not
show that the base images, their compiler and the clouds do as they should.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

import pytest
from integration.jobs import job
from servers.need import free_port
from servers.redis import Server

from mlless.data.dataset import Dataset
from mlless.deployment import Deployment
from mlless.driver import run_job
from mlless.function.build import build

pytestmark = pytest.mark.slow
DEADLINE = 60.0
_ARCHIVE = """
import os, sys, lithops
from lithops.utils import create_handler_zip
entry = os.path.join(os.path.dirname(lithops.__file__), "serverless/backends", sys.argv[1], "entry_point.py")
create_handler_zip(sys.argv[2], entry, sys.argv[3])
"""


class Image:
    """What is in an image: a folder of packages, and a Python with nothing installed."""

    def __init__(self, folder: Path, backend: str) -> None:
        self.deploy, self.root = folder / "deploy", folder / "image"
        self.packages = self.root / "function"
        build(self.deploy, f"{sys.version_info.major}.{sys.version_info.minor}", backend)
        self.lines = (self.deploy / "Dockerfile").read_text().splitlines()
        self.packages.mkdir(parents=True)
        venv.create(self.root / "python", with_pip=False, symlinks=True)
        if archive := next(
            (found[1] for line in self.lines if (found := re.match(r"COPY (\w+\.zip)", line))), ""
        ):
            arguments = [backend, str(self.deploy / archive), "lithopsproxy.py"]
            subprocess.run([sys.executable, "-c", _ARCHIVE, *arguments], check=True, timeout=DEADLINE)
        for line in self.lines:
            if line.startswith(("RUN pip ", "RUN python ")):
                self._run(line.removeprefix("RUN "))

    def _run(self, line: str) -> None:
        """Run a line as the build of the image does, where its folder / is that of the image."""
        words = [
            str(self.packages) if word == "/function" else "./mlless" if word == "/mlless" else word
            for word in shlex.split(line)
        ]
        command = [sys.executable, "-m", *words] if words[0] == "pip" else [sys.executable, *words[1:]]
        subprocess.run(command, cwd=self.deploy, check=True, timeout=900.0)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a container: those of the image, and the path."""
        said = [line.removeprefix("ENV ").split() for line in self.lines if line.startswith("ENV ")]
        of_image = dict(one.split("=", 1) for line in said[1:] for one in line)  # the first are the build's
        path = f"{self.root}/python/bin:/usr/bin:/bin"
        return {**of_image, "PYTHONPATH": str(self.packages), "PATH": path, "HOME": str(self.root)}

    @property
    def command(self) -> list[str]:
        """What the image starts."""
        return json.loads(next(line for line in self.lines if line.startswith("CMD ")).removeprefix("CMD "))


def test_the_image_for_cloud_run_serves_lithops(tmp_path: Path) -> None:
    image, port = Image(tmp_path, "gcp_cloudrun"), free_port()
    environment = {**image.environment, "PORT": str(port)}
    server = subprocess.Popen(image.command, cwd=image.packages, env=environment)
    try:
        deadline = time.monotonic() + DEADLINE
        while True:
            with contextlib.suppress(OSError):
                url = f"http://127.0.0.1:{port}/metadata"
                with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
                    found = json.load(answer)
                break
            assert server.poll() is None, "the image's command has ended"
            assert time.monotonic() < deadline, "the image's command does not answer"
            time.sleep(0.1)
        names = {name for name, _ in found["preinstalls"]}
        assert {"mlless", "numpy", "redis", "obstore"} <= names
        assert not {"scipy", "pandas", "pyarrow", "typer"} & names
    finally:
        server.terminate()
        server.wait(DEADLINE)
    # What Lithops' worker imports there, and the worker with its compiled kernels.
    code = "import lithops.storage.backends.gcp_storage, mlless.launch\n"
    code += "from mlless import kernels\nprint(kernels.NAME)"
    done = subprocess.run(
        ["python", "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE
    )
    assert done.stdout.strip() == "native", done.stderr


_DOCKER = """#!/bin/sh
# Runs in place what is asked to run in a container. Where that has /tmp, here is what would be mounted there.
echo "$*" >> {log}
case "$1" in
  run)
    name=$3
    for word; do case "$word" in *:/tmp) echo "${{word%:/tmp}}" > "{log}.$name";; esac; done
    case "$*" in *--detach*) exit 0;; esac
    while [ "$1" != mlless ]; do shift; done
    shift; command="python3 $*";;
  exec) name=$2 command=$5;;
  *) exit 0;;
esac
tmp=$(cat "{log}.$name")
exec env -i {environment} USER="$USER" TMPDIR="$tmp" \\
  /bin/sh -c "$(echo "$command" | sed "s#/tmp/#$tmp/#g")"
"""


def test_a_job_in_containers_of_this_machine(
    ratings: Dataset, tmp_path: Path, redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(tmp_path, "localhost")
    variables = shlex.join(f"{name}={value}" for name, value in image.environment.items())
    programs, log = tmp_path / "programs", tmp_path / "log"
    programs.mkdir()
    (programs / "docker").write_text(_DOCKER.format(log=log, environment=variables))
    (programs / "docker").chmod(0o755)
    config = tmp_path / "lithops.yaml"
    config.write_text("lithops:\n  backend: localhost\n  storage: localhost\nlocalhost:\n  runtime: mlless\n")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("LITHOPS_CONFIG_FILE", str(config))
    monkeypatch.setenv("USER", "root")
    spec = job(ratings, workers=2, epochs=1)
    deployment = Deployment(store=redis_server.url, runtime="lithops")
    run = run_job(spec, ratings, tmp_path / "run", deployment=deployment)
    assert run.summary.stop_reason == "epochs"
    assert "exec" in log.read_text()
    here = run_job(spec, ratings, tmp_path / "here")
    assert (run.folder / "model.safetensors").read_bytes() == (here.folder / "model.safetensors").read_bytes()
