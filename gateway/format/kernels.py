"""The optional C kernels of this package: each has a twin in Python that gives the same results more slowly.

``GATEWAY_NO_KERNEL=1`` in the environment, read when a kernel is first asked for, takes the twins.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType


def load(name: str) -> ModuleType | None:
    """The kernel ``gateway.format.NAME``; None where it was not built, or is not wanted."""
    if os.environ.get("GATEWAY_NO_KERNEL") == "1":
        return None
    try:
        return importlib.import_module(f"gateway.format.{name}")
    except ImportError:
        return None
