"""Builds the optional C kernel of the chunker; everything else is in pyproject.toml.

Without a C compiler the installation goes on and `gateway.format` uses its numpy twin, which cuts the same and
is slower.
"""

from pathlib import Path

from setuptools import Extension, setup

KERNEL = "gateway/format/_wide64.c"

setup(
    ext_modules=[
        Extension("gateway.format._wide64", sources=[KERNEL], extra_compile_args=["-O3"], optional=True),
    ]
    if Path(__file__).with_name("gateway").joinpath("format", "_wide64.c").exists()
    else [],
)
