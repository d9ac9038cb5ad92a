"""Every compiler, and every instruction set it builds for, gives the same bits."""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import subprocess
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from servers.need import missing
from tests.unit.kernels.conftest import Problems, clicks_room, contents, merge, outbox, packed, ratings_room

from mlless import kernels
from mlless.kernels.arrays import ClicksArrays, RatingsArrays, Rule, Total
from mlless.replica import coefficients

HERE = Path(kernels.__file__).parent
SETUP = Path(__file__).parents[3] / "setup.py"
HIGHEST = {"AVX-512": 512, "AVX2": 2, "plain": 1}  # where the processor has them
Build = Callable[[str, int], Path]


def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what setup.py hands to setuptools."""
    setuptools = pytest.importorskip("setuptools")
    told: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: told.update(arguments))
    runpy.run_path(str(SETUP))
    return told


def compilers(kind: str) -> list[str]:
    """Return the compilers of a kind on this machine, the oldest release first."""
    folders = map(Path, os.environ["PATH"].split(os.pathsep))
    names = {path.name for folder in folders if folder.is_dir() for path in folder.glob(f"{kind}*")}
    found = (re.fullmatch(rf"{kind}(?:-(\d+))?", name) for name in names)
    return [one[0] for one in sorted(filter(None, found), key=lambda one: int(one[1] or 1000))]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a function that compiles the kernels: by what, and the highest instruction set they may use."""
    include = sysconfig.get_paths()["include"]
    if not Path(include, "Python.h").exists():
        missing("Python.h", "install the headers of Python")
    with pytest.MonkeyPatch.context() as patch:
        (extension,) = setup_arguments(patch)["ext_modules"]
    flags = [*extension.extra_compile_args, "-fPIC", f"-I{include}", "-c"]

    @cache
    def compiled(compiler: str) -> Path:
        folder = tmp_path_factory.mktemp(compiler)
        jobs = [
            ("native_avx2.c", 512),
            ("native_avx512.c", 512),
            *(("native.c", h) for h in HIGHEST.values()),
        ]

        def run(job: tuple[str, int]) -> None:
            source, highest = job
            out = folder / f"{source.removesuffix('.c')}-{highest}.o"
            tell(compiler, *flags, f"-DHIGHEST={highest}", str(HERE / source), "-o", str(out))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, jobs))
        return folder

    def built(compiler: str, highest: int) -> Path:
        folder = compiled(compiler)
        objects = [folder / f"native-{highest}.o", *folder.glob("native_avx*.o")]
        out = folder / f"native-{highest}.so"
        tell(compiler, "-shared", *map(str, objects), "-o", str(out), "-lm")
        return out

    return built


def tell(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


def loaded(path: Path) -> ModuleType:
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
                users, items, columns, batch, 3.4, 0.9, 0.05, 0.5, rule, rule, 0.3, half, half, *boxes
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
        total, box = Total.zeros(5000 // columns, columns, counted=True), outbox(5000 // columns, columns)
        for update in updates:
            kernels.add_update([total], packed([update]))
        sent = kernels.flush_table(table, columns, None, 0.0, 0, box)
        note(f"add {columns}", total.sums.tobytes(), total.counts.tobytes(), total.touched.tobytes())
        note(f"flush {columns}", table.data.tobytes(), contents(box, sent, 0))
    for width in (2, 4):
        problems, begins, ends = Problems(width), np.array([100, 1000, 2007]), np.array([900, 1300, 2450])
        room = ratings_room(1543, 700, 9000, width)
        rated = problems.rated(700, 9000, 3000)
        note(f"ratings {width}", kernels.assemble_ratings(*rated, begins, ends, 700, 9000, room), *raw(room))
        clicked = problems.clicked(100_000, 3000, valued=True, weighted=True)
        space = clicks_room(1543, 9258, 9258, width, valued=True, weighted=True)
        note(f"clicks {width}", kernels.assemble_clicks(*clicked, begins, ends, 100_000, space), *raw(space))
    return found


def raw(room: RatingsArrays | ClicksArrays) -> list[bytes]:
    """Return what is in the arrays, beyond what is used, too."""
    return [array.tobytes() for array in room if isinstance(array, np.ndarray)]


@pytest.fixture(scope="session")
def bits(native: ModuleType) -> dict[str, str]:
    """Return what the installed kernels leave behind."""
    return fingerprint(native)


@pytest.mark.slow
@pytest.mark.parametrize("highest", HIGHEST)
@pytest.mark.parametrize("kind", ["gcc", "clang"])
def test_every_compiler_and_instruction_set_gives_the_same_bits(
    build: Build, bits: dict[str, str], kind: str, highest: str
) -> None:
    """Of each kind the oldest, which is where something is missing."""
    found = compilers(kind)
    if not found:
        missing(kind, f"install {kind}")
    assert fingerprint(loaded(build(found[0], HIGHEST[highest]))) == bits


@pytest.mark.parametrize("works", [True, False])
def test_what_the_compiler_says_is_kept_if_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], works: bool
) -> None:
    arguments = setup_arguments(monkeypatch)
    from setuptools import Distribution

    monkeypatch.chdir(tmp_path)
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho native.c: no such thing >&2\nexit 1\n")
    compiler.chmod(0o755)
    for variable in ("CC", "LDSHARED"):
        monkeypatch.setenv(variable, "true" if works else str(compiler))
    failure = tmp_path / "lib/mlless/kernels/build_failure.txt"
    failure.parent.mkdir(parents=True)
    failure.write_text("of the time before")
    command = Distribution({"name": "mlless", **arguments}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(tmp_path / "lib"), str(tmp_path / "temp")
    command.ensure_finalized()
    command.run()
    assert failure.exists() is not works
    if not works:
        assert "native.c: no such thing" in failure.read_text()
        assert "native.c: no such thing" in capfd.readouterr().err
