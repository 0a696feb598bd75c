"""A small file system of its own in a loop-mounted image: a spool that fills up, without filling the machine's disk.

::

    with LoopFS(tmp_path / "volume", size_bytes=64 * MIB) as volume:
        ...                      # volume.path is the mounted directory
        volume.free_bytes()
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.servers.process import ServerError, until

FileSystem = Literal["ext4", "xfs", "btrfs"]
BUSY_SECONDS = 20.0

# No blocks kept for root, who the tests are; everything initialized at once, not by a kernel thread in the background.
OPTIONS: dict[FileSystem, tuple[str, ...]] = {
    "ext4": ("-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"),
    "xfs": ("-m", "reflink=1"),
    "btrfs": (),
}


class NotMounted(ServerError):
    """This machine does not let us mount an image."""


def find_loopfs() -> Path | None:
    """`mkfs.ext4`, where this process may mount; that the kernel lets it is seen only by trying."""
    found = find_mkfs("ext4")
    return found if found and os.geteuid() == 0 and shutil.which("mount") else None


def find_mkfs(kind: FileSystem) -> Path | None:
    found = shutil.which(f"mkfs.{kind}") or shutil.which(f"mkfs.{kind}", path="/usr/sbin:/sbin")
    return Path(found) if found else None


class LoopFS:
    """Made, mounted and unmounted again; the image lies beside the directory, sparse. Needs root.

    XFS wants 300 MiB at least, btrfs 110 MiB. Some of the size goes to the file system itself: ask `free_bytes`.
    """

    def __init__(self, path: Path, *, size_bytes: int, kind: FileSystem = "ext4") -> None:
        self.path = path.absolute()
        self.kind = kind
        self._image = self.path.with_name(self.path.name + ".image")
        self._size = size_bytes
        self._mounted = False

    def mount(self) -> None:
        """Make it and mount it, or mount again what is there. `NotMounted` where the machine does not allow it."""
        if not self._image.exists():
            make = find_mkfs(self.kind)
            if make is None:
                raise NotMounted(f"mkfs.{self.kind} is not installed")
            with self._image.open("wb") as file:
                file.truncate(self._size)
            _run([make, "-q", *OPTIONS[self.kind], self._image])
        self.path.mkdir(exist_ok=True)
        try:
            # The loop device goes away by itself with the mount.
            _run(["mount", "-o", "loop", self._image, self.path])
        except ServerError as error:
            raise NotMounted(str(error)) from error
        self._mounted = True

    def unmount(self) -> None:
        """Idempotent. Waits for who is still in it; then lets go of it by force, which is a `ServerError`."""
        if not self._mounted:
            return
        try:
            until("nobody uses the file system", self._unmounts, seconds=BUSY_SECONDS)
        except ServerError:
            _run(["umount", "--lazy", self.path])
            raise
        finally:
            self._mounted = False

    def _unmounts(self) -> bool:
        return subprocess.run(["umount", self.path], capture_output=True, check=False).returncode == 0

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.path).free

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.unmount()
        finally:
            self._image.unlink(missing_ok=True)


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
