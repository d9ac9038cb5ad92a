"""Every instruction set gives the same bits, whatever the dispatcher picks on this processor."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from tests.unit.kernels.conftest import Problems, contents, merge, outbox

from mlless import kernels
from mlless.kernels.arrays import Rule
from mlless.replica import coefficients

SOURCE = Path(kernels.__file__).with_name("native.c")
FLAGS = ("-shared", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-DCLONES=")
TARGETS = {
    "baseline": ("-O2",),
    "x86-64": ("-O3", "-march=x86-64"),
    "x86-64-v3": ("-O3", "-march=x86-64-v3"),
}
NEEDED = {"x86-64-v3": {"avx2", "fma", "bmi2", "f16c", "movbe"}}


def processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


Builds = dict[str, tuple[Path, "subprocess.Popen[str]"]]


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Builds:
    """Start a compiler for each instruction set that this processor has."""
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    include = sysconfig.get_paths()["include"]
    if compiler is None or not Path(include, "Python.h").exists():
        pytest.skip("no C compiler with Python's headers")
    started = {}
    for target, flags in TARGETS.items():
        if target != "baseline" and (
            os.uname().machine != "x86_64" or NEEDED.get(target, set()) - processor_flags()
        ):
            continue
        path = tmp_path_factory.mktemp(target) / "native.so"
        command = [compiler, *FLAGS, *flags, f"-I{include}", str(SOURCE), "-o", str(path), "-lm"]
        started[target] = path, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    return started


@pytest.fixture(scope="session", params=list(TARGETS))
def other(request: pytest.FixtureRequest, builds: Builds) -> ModuleType:
    """Return the kernels compiled for one instruction set alone."""
    if request.param not in builds:
        pytest.skip(f"this processor is not {request.param}")
    path, compiling = builds[request.param]
    _, complaints = compiling.communicate()
    assert compiling.returncode == 0, complaints
    loader = ExtensionFileLoader("mlless.kernels.native", str(path))
    spec = spec_from_file_location("mlless.kernels.native", path, loader=loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def fingerprint(kernels: ModuleType) -> dict[str, str]:
    """Return digests of what a course of steps, filters and merges leaves behind, bit by bit."""
    found: dict[str, str] = {}

    def note(name: str, *parts: object) -> None:
        digest = hashlib.blake2b(digest_size=8)
        for part in parts:
            digest.update(part if isinstance(part, bytes) else repr(part).encode())
        found[name] = digest.hexdigest()

    for columns in (2, 9, 11, 12, 21, 33, 50, 65, 100, 256):
        for kind, half, decay, width in ((0, 0, 0.0, 2), (0, 1, 0.01, 4), (1, 1, 0.0, 2), (1, 0, 0.02, 4)):
            problems = Problems(columns)
            users, items = problems.table(60, columns), problems.table(50, columns)
            batch = problems.ratings(60, 50, touched=(40, 35), count=300, width=width)
            rule = Rule(kind, 0.1, 1e-3, 0.8 if kind else 0.0, decay, 6)
            boxes = outbox(40, columns, 8), outbox(35, columns, 8)
            loss, *sent = kernels.factorization_step(
                users, items, columns, batch, 3.4, 0.9, 0.05, 0.5, rule, 0.3, half, *boxes
            )
            filled = [contents(box, s, half) for box, s in zip(boxes, sent, strict=True)]
            error = kernels.factorization_error(users, items, columns, batch, 3.4, 1.1, 1.0, 5.0)
            note(
                f"mf {columns} {kind} {half}", users.data.tobytes(), items.data.tobytes(), loss, error, filled
            )
    for valued in (False, True):
        for kind, half, width in ((0, 1, 2), (0, 0, 4), (1, 1, 4), (1, 0, 2)):
            problems = Problems(7)
            features, intercept = problems.table(500, 1), problems.table(1, 1)
            clicks = problems.clicks(500, touched=300, rows=120, entries=2000, width=width, valued=valued)
            rule = Rule(kind, 0.1, 1e-3, 0.8 if kind else 0.0, 1e-3, 6)
            boxes = outbox(300, 1, 8), outbox(1, 1, 8)
            _, *sent = kernels.logistic_step(features, intercept, clicks, rule, 0.3, half, *boxes)
            filled = [contents(box, s, half) for box, s in zip(boxes, sent, strict=True)]
            note(f"lr {valued} {kind} {half}", features.data.tobytes(), intercept.data.tobytes(), filled)
    for columns in (1, 7, 11, 21, 33, 65, 80):
        problems = Problems(columns)
        table = problems.table(5000 // columns, columns)
        updates = [problems.update(5000 // columns, columns, 2000 // columns, 0.4) for _ in range(7)]
        for merge_rule in ("sum", "mean", "sqrt-members", "sqrt-publishers"):
            factors, by_count = coefficients(merge_rule, 7)
            merge(kernels, table, columns, updates, factors, by_count)
        note(f"merge {columns}", table.data.tobytes())
    return found


def test_every_instruction_set_gives_the_same_bits(native: ModuleType, other: ModuleType) -> None:
    assert other is not native
    assert fingerprint(other) == fingerprint(native)
