"""Builds the optional C kernels (`gateway/**/_*.c`); everything else is in pyproject.toml.

Each has a twin in numpy or Python that gives the same results more slowly, so without a C compiler the installation
goes on and the twin is used.
"""

from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
KERNELS = sorted(path.relative_to(ROOT) for path in ROOT.glob("gateway/**/_*.c"))

setup(
    ext_modules=[
        Extension(
            ".".join(path.with_suffix("").parts),
            sources=[path.as_posix()],
            depends=[header.as_posix() for header in path.parent.glob("*.h")],
            extra_compile_args=["-O3"],
            optional=True,
        )
        for path in KERNELS
    ]
)
