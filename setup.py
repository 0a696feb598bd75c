"""Builds the optional C kernels; everything else is in pyproject.toml.

Without a C compiler the installation goes on: `gateway.format.chunker` then uses its numpy twin and
`gateway.repository.id_table` a dict, which give the same answers and are slower.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(f"gateway.format.{name}", [f"gateway/format/{name}.c"], extra_compile_args=["-O3"], optional=True)
        for name in ("_wide64", "_id_table")
    ],
)
