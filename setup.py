"""Builds the C++ extension; everything else about the package is in pyproject.toml."""

from pathlib import Path

import pybind11
from pybind11.setup_helpers import ParallelCompile
from setuptools import Extension, setup

# Portable instructions only: a wheel built on one machine has to run on every other (no -march=native).
# What gains from wider ones (csrc/blend_scan*.cpp) has versions for them, chosen at run time.
# -ffp-contract=off: a fused multiply-add would round the blend's errors differently and break its ties
# differently from megatron-core.
FLAGS = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fvisibility=hidden"]

ParallelCompile().install()  # one file on each core

setup(
    ext_modules=[
        Extension(
            "megatron_ext._C",
            sources=sorted(str(path) for path in Path("csrc").glob("*.cpp")),
            depends=[*sorted(str(path) for path in Path("csrc").glob("*.h")), "setup.py"],
            include_dirs=[pybind11.get_include()],
            language="c++",
            extra_compile_args=FLAGS,
        )
    ]
)
