"""``python -m gateway`` and the ``gateway`` program."""

from __future__ import annotations

import sys

from gateway.cli import main as run_command_line


def main() -> None:
    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
