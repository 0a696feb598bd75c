"""A writer over SMB: one connection, one session, and files opened as the Explorer opens them."""

from __future__ import annotations

import contextlib
import time
import uuid
from typing import Any

from smbprotocol.connection import Connection
from smbprotocol.exceptions import SMBException
from smbprotocol.file_info import (
    FileAttributes,
    FileBasicInformation,
    FileEndOfFileInformation,
    FileRenameInformation,
)
from smbprotocol.open import (
    CreateDisposition,
    CreateOptions,
    FilePipePrinterAccessMask,
    ImpersonationLevel,
    Open,
    RequestedOplockLevel,
    ShareAccess,
    SMB2SetInfoRequest,
)
from smbprotocol.session import Session
from smbprotocol.tree import TreeConnect

from tests.servers.samba import Address
from tests.writers.hands import A_YEAR
from tests.writers.plan import How

SECONDS = 60
WRITE_BYTES = 1024 * 1024
"""At once: 16 credits. The server grants them as it likes, and a request that needs more than there are is an error of
the client library."""
SINCE_1601 = 11_644_473_600
DISPOSITION = {
    How.CREATE: CreateDisposition.FILE_OVERWRITE_IF,
    How.APPEND: CreateDisposition.FILE_OPEN_IF,
    How.UPDATE: CreateDisposition.FILE_OPEN,
}
WRITING = FilePipePrinterAccessMask.GENERIC_READ | FilePipePrinterAccessMask.GENERIC_WRITE
MOVING = FilePipePrinterAccessMask.DELETE | FilePipePrinterAccessMask.FILE_READ_ATTRIBUTES


class SmbHands:
    """`tests.writers.hands.Hands` over SMB 3, signed. `oplock`: ask for a batch oplock, as Windows does.

    Files are opened with a share mode that lets others read only, again as Windows does for a copy.
    """

    def __init__(self, address: Address, *, oplock: bool = True) -> None:
        self._oplock = RequestedOplockLevel.SMB2_OPLOCK_LEVEL_BATCH if oplock else 0
        self._connection = Connection(uuid.uuid4(), address.server, address.port)
        self._connection.connect(timeout=SECONDS)
        session = Session(self._connection, address.user, address.password, require_encryption=False)
        session.connect()
        self._tree = TreeConnect(session, rf"\\{address.server}\{address.share}")
        self._tree.connect()
        self._file: Any = None

    def make_directory(self, path: str) -> None:
        options = CreateOptions.FILE_DIRECTORY_FILE
        self._opened(path, MOVING, CreateDisposition.FILE_OPEN_IF, options).close()

    def open(self, path: str, how: How, size: int = 0) -> None:
        if how is How.MAP:
            raise ValueError("nobody maps a file over SMB")
        options = CreateOptions.FILE_NON_DIRECTORY_FILE
        self._file = self._opened(path, WRITING, DISPOSITION[how], options, self._oplock)

    @property
    def oplock(self) -> int:
        """The level that was granted for the open file."""
        return int(self._file.oplock_level)

    def set_end(self, size: int) -> None:
        information = FileEndOfFileInformation()
        information["end_of_file"] = size
        self._set(self._file, information)

    def write(self, offset: int, data: bytes) -> None:
        step = min(WRITE_BYTES, int(self._connection.max_write_size))
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            if self._file.write(piece, offset + start) != len(piece):
                raise OSError("Samba wrote less than it was given")

    def backdate(self) -> None:
        information = FileBasicInformation()
        # Windows counts tenths of microseconds since 1601; 0 leaves the other times alone.
        information["last_write_time"] = int((time.time() - A_YEAR + SINCE_1601) * 10**7)
        self._set(self._file, information)

    def close(self) -> None:
        self._file.close()
        self._file = None

    def rename(self, path: str, to: str) -> None:
        file = self._opened(path, MOVING, CreateDisposition.FILE_OPEN, 0)
        information = FileRenameInformation()
        # The flag is refused for directories, and nothing is there under their new name.
        information["replace_if_exists"] = not file.file_attributes & FileAttributes.FILE_ATTRIBUTE_DIRECTORY
        information["file_name"] = _windows(to)
        self._set(file, information)
        file.close()

    def delete(self, path: str) -> None:
        options = CreateOptions.FILE_NON_DIRECTORY_FILE | CreateOptions.FILE_DELETE_ON_CLOSE
        self._opened(path, MOVING, CreateDisposition.FILE_OPEN, options).close()

    def end(self) -> None:
        with contextlib.suppress(SMBException, OSError):  # the server may be gone
            self._connection.disconnect(timeout=5)

    def _opened(self, path: str, access: int, disposition: int, options: int, oplock: int = 0) -> Any:
        file = Open(self._tree, _windows(path))
        share = ShareAccess.FILE_SHARE_READ if access == WRITING else _ALL
        file.create(
            ImpersonationLevel.Impersonation, access, FileAttributes.FILE_ATTRIBUTE_NORMAL, share, disposition, options,
            oplock_level=oplock,
        )  # fmt: skip
        return file

    def _set(self, file: Any, information: Any) -> None:
        request = SMB2SetInfoRequest()
        request["info_type"] = information.INFO_TYPE
        request["file_info_class"] = information.INFO_CLASS
        request["file_id"] = file.file_id
        request["buffer"] = information
        session = self._tree.session
        sent = self._connection.send(request, session.session_id, self._tree.tree_connect_id)
        self._connection.receive(sent)


_ALL = ShareAccess.FILE_SHARE_READ | ShareAccess.FILE_SHARE_WRITE | ShareAccess.FILE_SHARE_DELETE


def _windows(path: str) -> str:
    return path.replace("/", "\\")
