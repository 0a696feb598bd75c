"""Whether a file ends where its format says it should, by its head and its tail.

`inspect` recognises a format by content and asks the module that knows it. Reads are positioned and bounded
(`LOOK_BYTES`; `WALK_BYTES` for a tar or cpio) whatever the file's size, so it can be asked of a pinned file before
it is read. What no bounded look can prove is UNKNOWN, never COMPLETE on a guess; with `whole` the file is read through.

docs/design/evidence.md says for each format what is checked and what can fool it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.spool import archives, pgdump, streams
from gateway.spool.structure import (
    LOOK_BYTES,
    Look,
    NotToldError,
    Read,
    State,
    Structure,
    complete,
    torn,
    unknown,
)

__all__ = ["HEAD_BYTES", "Read", "State", "Structure", "inspect", "recognise"]

HEAD_BYTES = 1024

_BY_CONTENT: tuple[tuple[str, Callable[[bytes], bool], Callable[[Look], Structure], int], ...] = (
    ("gzip", streams.is_gzip, streams.gzip, LOOK_BYTES),
    ("zstd", streams.is_zstd, streams.zstd, LOOK_BYTES),
    ("xz", streams.is_xz, streams.xz, LOOK_BYTES),
    ("bzip2", streams.is_bzip2, streams.bzip2, LOOK_BYTES),
    ("lz4", streams.is_lz4, streams.lz4, LOOK_BYTES),
    ("zip", archives.is_zip, archives.zip_, LOOK_BYTES),
    ("pg_dump", pgdump.is_pg_dump, pgdump.pg_dump, LOOK_BYTES),
    ("cpio", archives.is_cpio, archives.cpio, archives.WALK_BYTES),
    ("tar", archives.is_tar, archives.tar, archives.WALK_BYTES),
)

_NEVER_ZEROS = {
    b".gz": "gzip", b".tgz": "gzip", b".zst": "zstd", b".xz": "xz", b".txz": "xz", b".bz2": "bzip2", b".tbz2": "bzip2",
    b".lz4": "lz4", b".zip": "zip", b".cpio": "cpio", b".sql": "sql", b".dump": "pg_dump",
}  # fmt: skip
"""Names whose files never begin with zeros. An empty tar does."""


def inspect(name: bytes, size: int, read: Read, *, whole: bool = False) -> Structure:
    """The structure of the file called `name`. Raises what `read` raises, and nothing else.

    `whole` reads all of it where that tells more: compressed streams are decompressed and their checksums compared,
    and a walk goes on to the last member. Memory stays bounded.
    """
    try:
        head = Look(size, read).at(0, HEAD_BYTES)
        kind = recognise(head)
        for known, _, ask, limit in _BY_CONTENT:
            if known == kind:
                return ask(Look(size, read, None if whole else limit))
        dump = _sql_dump(head)
        if dump is not None:
            return _sql(Look(size, read), *dump)
        return _nothing(name, head)
    except NotToldError as error:
        return unknown("", f"Not judged: {error}.")


def recognise(head: bytes) -> str:
    """The format that the first `HEAD_BYTES` of a file show, or nothing. SQL dumps are texts and not among them."""
    for known, is_it, _, _ in _BY_CONTENT:
        if is_it(head):
            return known
    return ""


def _nothing(name: bytes, head: bytes) -> Structure:
    if head and not any(head):
        last = name.rpartition(b"/")[2].lower()
        kind = _NEVER_ZEROS.get(last[last.rfind(b".") :] if b"." in last else b"", "")
        if kind:
            return torn(kind, "It begins with zeros: its size was reserved, and the bytes did not come.")
    return unknown("", "Its format is none that says where it ends.")


# --- SQL dumps ----------------------------------------------------------------------------------------------------

_SQL: tuple[tuple[str, re.Pattern[bytes], re.Pattern[bytes], bytes], ...] = (
    (
        "pg_dumpall",
        re.compile(rb"--\r?\n-- PostgreSQL database cluster dump\r?\n--\r?\n"),
        re.compile(rb"\n--\r?\n-- PostgreSQL database cluster dump complete\r?\n--\s*\Z"),
        b"\n-- PostgreSQL database cluster dump complete",
    ),
    (
        "pg_dump SQL",
        re.compile(rb"--\r?\n-- PostgreSQL database dump\r?\n--\r?\n"),
        re.compile(rb"\n--\r?\n-- PostgreSQL database dump complete\r?\n--\s*(?:\\unrestrict \w+\s*)?\Z"),
        b"\n-- PostgreSQL database dump complete",
    ),
    (
        "mysqldump",
        re.compile(rb"(?:/\*[^\n]{0,100}\*/;?[ \t]*\r?\n)?-- (MySQL|MariaDB) dump \d"),
        re.compile(rb"\n-- Dump completed(?: on [\d :T-]+)?\s*\Z"),
        b"\n-- Dump completed",
    ),
)
"""Kind, how it begins, how it ends, and the words that show its end was reached though something follows."""


def _sql_dump(head: bytes) -> tuple[str, re.Pattern[bytes], bytes, bytes] | None:
    for kind, begins, ends, mark in _SQL:
        if begins.match(head):
            # Since 2025 a dump locks psql's own commands and unlocks them at its end; pg_dumpall long before it.
            token = re.search(rb"^\\restrict (\w+)\s*$", head, re.MULTILINE) if kind == "pg_dump SQL" else None
            return kind, ends, mark, token[1] if token else b""
    return None


def _sql(look: Look, kind: str, ends: re.Pattern[bytes], mark: bytes, token: bytes) -> Structure:
    """The closing comment as the last thing; where the head locks psql, its very token given back after that."""
    tail = look.tail()
    if ends.search(tail) and tail.endswith(b"\n"):
        if token and not re.search(rb"\\unrestrict " + re.escape(token) + rb"\s*\Z", tail):
            return torn(kind, "It ends before psql's commands are unlocked.")
        return complete(kind, "Its closing comment stands at the end.")
    if not any(tail[-streams.ZEROS :]):
        return torn(kind, "It ends in zeros: its size was reserved, and the bytes did not come.")
    if mark in tail:
        return unknown(kind, "Something follows its closing comment.")
    return torn(kind, "Its closing comment is missing.")
