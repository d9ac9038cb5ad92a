"""The compiled kernels, what a wheel needs beside the code, and an index's page; the rest: pyproject.toml.

``optional``: where they cannot be compiled the package installs without them and computes with NumPy;
what the compiler said is left beside them. Contraction is off because the same seed must give the same
bits on every processor.
"""

import os
import re
import sys
import sysconfig
import tempfile
from pathlib import Path
from shutil import copy

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

KERNELS = Path("mlless/kernels")
FAILURE = KERNELS / "build_failure.txt"  # mlless.kernels tells it
PROJECT = Path("mlless/function/project")  # mlless.function.build makes a source tree of it
LINES = 30
# A free-threaded Python has no stable ABI: its kernels are built for that very version.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildKernels(build_ext):
    """Keeps what the compiler says if it fails: pip shows nothing of an optional extension's failure."""

    def run(self) -> None:
        """Build, and put the record of a failure wherever the kernels would be."""
        self.failure = ""
        super().run()
        for root in [Path(self.build_lib), *([Path("src")] if self.inplace else [])]:
            (root / FAILURE).unlink(missing_ok=True)
            if self.failure:
                (root / KERNELS).mkdir(parents=True, exist_ok=True)
                (root / FAILURE).write_text(self.failure)

    def build_extension(self, ext: Extension) -> None:
        """Build, with standard error going to a file meanwhile."""
        sys.stderr.flush()
        terminal = os.dup(2)
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            os.dup2(said.fileno(), 2)
            try:
                super().build_extension(ext)
            except Exception as error:
                said.seek(0)
                self.failure = "".join([f"{error}\n", *said.readlines()[:LINES]])
                raise
            finally:
                os.dup2(terminal, 2)
                os.close(terminal)
                said.seek(0)
                sys.stderr.write(said.read())


class BuildCode(build_py):
    """Puts what a source tree needs beside the code into a wheel."""

    def run(self) -> None:
        """Copy the code, then these files."""
        super().run()
        if not self.editable_mode:
            project = Path(self.build_lib) / PROJECT
            project.mkdir(parents=True, exist_ok=True)
            for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
                copy(name, project)


def page() -> str:
    """Return the README for the page of an index, where a link to a file beside it leads nowhere."""
    text = Path("README.md").read_text(encoding="utf-8")
    named = re.sub(
        r"\[([^]]*)\]\((?!\w+:)([^)#]*)[^)]*\)",
        lambda link: f"`{link[2]}`" if link[1] in link[2] else f"{link[1]}: `{link[2]}`",
        text,
    )
    return f"{named}\nThe files named here are in the source distribution.\n"


setup(
    long_description=page(),
    long_description_content_type="text/markdown",
    ext_modules=[
        Extension(
            "mlless.kernels.native",
            [f"src/mlless/kernels/native{version}.c" for version in ("", "_avx2", "_avx512")],
            depends=["src/mlless/kernels/native.c"],
            extra_compile_args=[
                "-O3",
                "-g0",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-Wall",
                "-Wextra",
            ],
            libraries=["m"],
            py_limited_api=STABLE,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels, "build_py": BuildCode},
    options={"bdist_wheel": {"py_limited_api": "cp311"}}
    if STABLE
    else {},  # one wheel for every later Python
)
