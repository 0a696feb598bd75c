"""Who has a file open for writing, where the kernel's lease cannot be asked.

Can only veto: that nobody was found proves nothing.

Two ways: descriptors of the processes of this machine (``/proc``), and what Samba says of its clients (``smbstatus``).
Both are snapshots; a writer over NFS appears in neither.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

import msgspec

from gateway.clock import SystemClock
from gateway.model.entry import Identity

_ACCESS = os.O_WRONLY | os.O_RDWR
PROC_SECONDS = 2.0
"""LIMIT: how long one look at the processes answers for: it costs milliseconds for each hundred descriptors."""
SMBSTATUS_SECONDS = 10.0
"""LIMIT: how long ``smbstatus`` may take; it locks Samba's databases for reading."""


class _Writers:
    """(device, inode) of everything open for writing on this machine, as of at most `PROC_SECONDS` ago."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock = SystemClock()
        self._at = float("-inf")
        self._found: dict[tuple[int, int], str] = {}

    def who(self, device: int, inode: int) -> str:
        with self._lock:
            now = self._clock.monotonic()
            if now - self._at > PROC_SECONDS:
                self._found = _open_files() | _samba_files()
                self._at = now
            return self._found.get((device, inode), "")


_writers = _Writers()


def writer_of(identity: Identity) -> str:
    """The program that has it open for writing, for people; empty: none was found."""
    return _writers.who(identity.device, identity.inode)


def _open_files() -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}
    own = str(os.getpid())
    for process in os.scandir("/proc"):
        if not process.name.isdigit() or process.name == own:
            continue
        with contextlib.suppress(OSError):
            for descriptor in os.scandir(f"/proc/{process.name}/fd"):
                with contextlib.suppress(OSError, ValueError):
                    flags = _flags(Path(f"/proc/{process.name}/fdinfo/{descriptor.name}"))
                    if flags & _ACCESS:
                        status = descriptor.stat()
                        found[status.st_dev, status.st_ino] = _name(process.name)
    return found


def _flags(fdinfo: Path) -> int:
    for line in fdinfo.read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8)
    return 0


def _name(process: str) -> str:
    try:
        return f"{Path(f'/proc/{process}/comm').read_text().strip()} (pid {process})"
    except OSError:
        return f"pid {process}"


def _samba_files() -> dict[tuple[int, int], str]:
    """Files that clients of Samba hold with the right to write, by what ``smbstatus`` says. Needs root."""
    program = shutil.which("smbstatus")
    if program is None or os.geteuid() != 0:
        return {}
    found: dict[tuple[int, int], str] = {}
    try:
        done = subprocess.run(
            [program, "--locks", "--json"], capture_output=True, timeout=SMBSTATUS_SECONDS, check=False
        )
        status = msgspec.json.decode(done.stdout)
        for file in status.get("open_files", {}).values():
            path = os.path.join(file["service_path"], file["filename"])
            if any("W" in str(each.get("access_mask", {}).get("text", "")) for each in file["opens"].values()):
                seen = os.stat(path)
                found[seen.st_dev, seen.st_ino] = "a client of Samba"
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError, KeyError, AttributeError, TypeError):
        return found
    return found
