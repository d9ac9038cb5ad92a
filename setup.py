"""The compiled kernels; everything else stands in pyproject.toml.

``optional``: where there is no C compiler the package installs without them and computes with
NumPy. Contraction is off because the same seed must give the same bits on every processor.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "mlless.kernels.native",
            ["src/mlless/kernels/native.c"],
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
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},  # one wheel serves every later Python
)
