"""What carries out the steps of one writer: on a directory, or in memory. Over SMB: `tests.writers.smb`."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import stat
from pathlib import Path
from typing import Protocol

from tests.writers.plan import How

A_YEAR = 365 * 24 * 3600


class Hands(Protocol):
    """One writer with at most one open file. Paths are relative to the spool, with slashes. Not thread-safe."""

    def make_directory(self, path: str) -> None:
        """It may be there."""

    def open(self, path: str, how: How, size: int = 0) -> None: ...

    def set_end(self, size: int) -> None: ...

    def write(self, offset: int, data: bytes) -> None: ...

    def backdate(self) -> None: ...

    def close(self) -> None:
        """Close the open file; the spool has all of it, and nothing of it is open any more."""

    def rename(self, path: str, to: str) -> None:
        """Over a file that is there. Of a file, or of a directory with all that is in it."""

    def delete(self, path: str) -> None: ...

    def end(self) -> None:
        """Go away in order."""


class LocalHands:
    """Writes below a directory of this machine, without buffers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._fd = -1
        self._map: Mapping | None = None

    def make_directory(self, path: str) -> None:
        (self._root / path).mkdir(exist_ok=True)

    def open(self, path: str, how: How, size: int = 0) -> None:
        flags = {How.CREATE: os.O_CREAT | os.O_TRUNC, How.APPEND: os.O_CREAT, How.UPDATE: 0}
        self._fd = os.open(self._root / path, os.O_RDWR | flags.get(how, os.O_CREAT | os.O_TRUNC), 0o644)
        if how is How.MAP:
            os.ftruncate(self._fd, size)
            self._map = Mapping(self._fd, size)
            os.close(self._fd)
            self._fd = -1

    def set_end(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def write(self, offset: int, data: bytes) -> None:
        if self._map is not None:
            self._map.write(offset, data)
            return
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], offset + done)

    def backdate(self) -> None:
        now = os.fstat(self._fd)
        os.utime(self._fd, ns=(now.st_atime_ns, now.st_mtime_ns - A_YEAR * 10**9))

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
            return
        os.close(self._fd)
        self._fd = -1

    def rename(self, path: str, to: str) -> None:
        (self._root / path).rename(self._root / to)

    def delete(self, path: str) -> None:
        (self._root / path).unlink()

    def end(self) -> None:
        if self._fd >= 0 or self._map is not None:
            self.close()


class Mapping:
    """A file mapped shared and writable, without a descriptor of its own: `mmap` of Python would keep one open."""

    def __init__(self, fd: int, size: int) -> None:
        self._size = size
        self._address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        if self._address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), "mmap")

    def write(self, offset: int, data: bytes) -> None:
        if not 0 <= offset <= offset + len(data) <= self._size:
            raise ValueError("outside of the mapping")
        ctypes.memmove(self._address + offset, data, len(data))

    def close(self) -> None:
        if _libc.munmap(self._address, self._size):
            raise OSError(ctypes.get_errno(), "munmap")


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class MemoryHands:
    """Files in a dictionary that all writers share."""

    def __init__(self, files: dict[str, bytearray]) -> None:
        self._files = files
        self._path = ""

    def make_directory(self, path: str) -> None:
        pass

    def open(self, path: str, how: How, size: int = 0) -> None:
        self._path = path
        if how in (How.CREATE, How.MAP):
            self._files[path] = bytearray(size)
        elif how is How.APPEND:
            self._files.setdefault(path, bytearray())

    def set_end(self, size: int) -> None:
        data = self._files[self._path]
        if size < len(data):
            del data[size:]
        data.extend(bytes(size - len(data)))

    def write(self, offset: int, data: bytes) -> None:
        file = self._files[self._path]
        file.extend(bytes(max(0, offset - len(file))))
        file[offset : offset + len(data)] = data

    def backdate(self) -> None:
        pass

    def close(self) -> None:
        self._path = ""

    def rename(self, path: str, to: str) -> None:
        for name in [name for name in self._files if name == path or name.startswith(path + "/")]:
            self._files[to + name[len(path) :]] = self._files.pop(name)

    def delete(self, path: str) -> None:
        del self._files[path]

    def end(self) -> None:
        pass


def has_writer(path: Path) -> bool:
    """Whether any process has a file open for writing, or mapped writable. Asks for the kernel's read lease.

    As root or the file's owner only; the lease is given back at once.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("only regular files have writers")
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except BlockingIOError:
            return True
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    finally:
        os.close(fd)
