"""The ends of archives: tar, cpio and zip.

A tar and a cpio are walked from header to header, because their last blocks are zeros or padding, and zeros prove
nothing: a file whose size was reserved ends in them too. A zip's directory stands at its end and says where it must
begin, so its tail is enough.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gateway.spool.structure import Look, State, Structure, complete, torn, unknown

BLOCK = 512
RECORD = 10_240
"""GNU tar and Python pad an archive to this; the padding is part of it."""

WALKED_MEMBERS = 2_048
"""LIMIT: headers of a tar or cpio that are read in a bounded look, 512 or 110 bytes each, plus the extended headers
before them: at most `WALK_BYTES`. With more members the answer is UNKNOWN; `whole` walks them all."""

WALK_BYTES = 2 * 1024 * 1024

EXTENDED_BYTES = 1024 * 1024
"""LIMIT: a pax header that is read for the size it gives the next member; a longer one is not ours to judge."""

_LAST_BYTES = 8
"""Zeros at the end of the last member's data: what was reserved and not yet written looks the same."""

_NO_DATA = frozenset(b"123456")
"""Links, devices, directories and FIFOs: whatever their size field says, nothing follows."""


@dataclass(frozen=True, slots=True)
class TarHeader:
    """`size` is that of the data which follow, before padding; `extended`: more sparse headers come first."""

    name: bytes
    size: int
    type: int
    extended: bool
    ustar: bool


def tar_header(block: bytes) -> TarHeader | None:
    """One header block, or None where its checksum is wrong or a number makes no sense."""
    if len(block) != BLOCK:
        return None
    said = _octal(block[148:156])
    if said is None:
        return None
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    # Some old tars added signed bytes.
    signed = unsigned - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)
    if said not in (unsigned, signed):
        return None
    size = _number(block[124:136])
    if size is None:
        return None
    magic = block[257:265]
    ustar = magic[:5] == b"ustar"
    name = block[:100].split(b"\0", 1)[0]
    if magic[:6] == b"ustar\0" and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    kind = block[156]
    return TarHeader(
        name=name,
        size=0 if kind in _NO_DATA else size,
        type=kind,
        extended=kind == ord("S") and block[482] != 0,
        ustar=ustar,
    )


def pax_size(data: bytes) -> int | None:
    """The `size` record of a pax header, which overrules the next header's field; None without one.

    `ValueError` for what is not pax records.
    """
    found: int | None = None
    while data:
        length_text, separator, _ = data.partition(b" ")
        if not separator or not length_text.isdigit() or len(length_text) > 9:
            raise ValueError("not a pax record")
        length = int(length_text)
        record = data[len(length_text) + 1 : length]
        if length > len(data) or record[-1:] != b"\n":
            raise ValueError("not a pax record")
        key, _, value = record[:-1].partition(b"=")
        if key == b"size":
            if not value.isdigit() or len(value) > 19:
                raise ValueError("not a size")
            found = int(value)
        data = data[length:]
    return found


def padded(size: int, unit: int = BLOCK) -> int:
    return -(-size // unit) * unit


def is_tar(head: bytes) -> bool:
    header = tar_header(head[:BLOCK])
    return header is not None and (header.ustar or header.name != b"")


def tar(look: Look) -> Structure:
    """POSIX (ustar, pax), GNU and v7. At most `WALKED_MEMBERS` headers unless the look has no limit.

    Complete: every member ends where a header or the end begins; the end is two zero blocks and nothing more, or as
    many as fill the last record of 10,240 bytes. More zeros than that may be a reserved size: UNKNOWN.
    """
    offset, members = 0, 0
    first = tar_header(look.at(0, BLOCK))
    volume = first is not None and chr(first.type) in "MV"
    next_size: int | None = None
    data, data_end = 0, 0
    while True:
        block = look.at(offset, BLOCK)
        if len(block) < BLOCK or not any(block):
            break
        if members >= WALKED_MEMBERS and look.limit is not None:
            return unknown("tar", f"It has more than {WALKED_MEMBERS} members.")
        header = tar_header(block)
        if header is None:
            return torn("tar", f"There is no header at byte {offset}, where member {members + 1} should begin.")
        offset += BLOCK
        extended = header.extended
        while extended:
            more = look.at(offset, BLOCK)
            if len(more) < BLOCK:
                break
            extended = more[504] != 0
            offset += BLOCK
        size = header.size
        if header.type == ord("x"):
            if size > EXTENDED_BYTES:
                return unknown("tar", f"The extended header at byte {offset} is unusually large.")
            try:
                next_size = pax_size(look.at(offset, size)) if offset + size <= look.size else None
            except ValueError:
                return torn("tar", f"The extended header at byte {offset} is damaged.")
        elif header.type not in b"gLK":
            if next_size is not None and header.type not in _NO_DATA:
                size = next_size
            next_size = None
        members += 1
        data, data_end = size, offset + size
        offset += padded(size)
        if offset > look.size:
            if volume:
                return unknown("tar", "It is one volume of several.")
            return torn("tar", f"Member {members} would end at byte {offset}; the file has {look.size}.")
    end = _tar_end(look, offset, members, volume=volume)
    last = min(data, _LAST_BYTES)
    if end.state is State.COMPLETE and data and not any(look.at(data_end - last, last)):
        return unknown("tar", "Its last member ends in zeros: they may not have come yet.")
    return end


def _tar_end(look: Look, offset: int, members: int, *, volume: bool) -> Structure:
    zeros = look.size - offset
    if zeros < 2 * BLOCK:
        if volume:
            return unknown("tar", "It is one volume of several.")
        return torn("tar", f"The two zero blocks at the end are missing after {members} members.")
    if any(look.at(offset, 2 * BLOCK)):
        return torn("tar", f"One zero block stands alone at byte {offset}.")
    if zeros == 2 * BLOCK or (look.size % RECORD == 0 and zeros < RECORD + 2 * BLOCK):
        if any(look.at(offset, zeros)):
            return unknown("tar", f"Something follows its end at byte {offset}.")
        return complete("tar", f"{members} members and the two zero blocks at the end.")
    return unknown("tar", f"{zeros} bytes follow its {members} members: more than padding.")


def _octal(field: bytes) -> int | None:
    text = field.strip(b" \0")
    if not text:
        return 0
    if any(byte not in b"01234567" for byte in text):
        return None
    return int(text, 8)


def _number(field: bytes) -> int | None:
    """Octal digits, or with the first bit set a binary number (GNU, star)."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:])
        return value if value < 1 << 63 else None
    return None if field[0] & 0x80 else _octal(field)


# --- cpio ---------------------------------------------------------------------------------------------------------

_CPIO_KINDS = {b"070701": (110, 16, 4), b"070702": (110, 16, 4), b"070707": (76, 8, 1)}
"""Magic -> bytes of the header, base of its numbers, alignment of names and data."""

_CPIO_PADDING = (BLOCK, 5120)
"""What writers fill the last block to: -o, and -B."""


def is_cpio(head: bytes) -> bool:
    return head[:6] in _CPIO_KINDS and _cpio_header(head) is not None


def _cpio_header(head: bytes) -> tuple[int, int, int, int] | None:
    """(length of header, of name, of data; alignment), or None for what is no header."""
    kind = _CPIO_KINDS.get(head[:6])
    if kind is None or len(head) < kind[0]:
        return None
    length, base, alignment = kind
    digits = head[6:length]
    try:
        # int() takes signs, spaces and underscores too; a header does not.
        if not all(byte in b"0123456789abcdefABCDEF" for byte in digits):
            return None
        if base == 16:
            name, data = int(digits[88:96], 16), int(digits[48:56], 16)
        else:
            name, data = int(digits[53:59], 8), int(digits[59:70], 8)
    except ValueError:
        return None
    return (length, name, data, alignment) if 0 < name <= 65_536 else None


def cpio(look: Look) -> Structure:
    """SVR4 ("newc", with and without checksums) and POSIX ("odc"), walked as a tar is.

    Complete: the member TRAILER!!! is reached, and nothing follows it but the padding of the last block.
    """
    offset, members = 0, 0
    while True:
        head = look.at(offset, 128)
        if members >= WALKED_MEMBERS and look.limit is not None:
            return unknown("cpio", f"It has more than {WALKED_MEMBERS} members.")
        header = _cpio_header(head)
        if header is None:
            if offset >= look.size or len(head) < 110:
                return torn("cpio", f"It ends after {members} members without TRAILER!!!.")
            return torn("cpio", f"There is no header at byte {offset}, where member {members + 1} should begin.")
        length, name, data, alignment = header
        ends = padded(offset + length + name, alignment)
        trailer = name == 11 and head[length : length + 11] == b"TRAILER!!!\0"
        if trailer:
            rest = look.size - ends
            if rest < 0 and look.size != offset + length + name:
                return torn("cpio", "Its last member TRAILER!!! is cut off.")
            fits = rest <= 0 or any(look.size % unit == 0 and rest < unit for unit in _CPIO_PADDING)
            if fits and look.zeros_to_the_end(ends, max(_CPIO_PADDING)):
                return complete("cpio", f"{members} members and TRAILER!!!.")
            return unknown("cpio", f"{rest} bytes follow TRAILER!!!: more than padding.")
        members += 1
        offset = padded(ends + data, alignment)
        if ends + data > look.size:
            return torn("cpio", f"Member {members} would end at byte {ends + data}; the file has {look.size}.")


# --- zip ----------------------------------------------------------------------------------------------------------

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_DIRECTORY_BYTES = 128 * 1024
_COMPARED_MEMBERS = 64
"""LIMIT: members whose own headers are compared with the directory, 30 bytes and a name each."""


def is_zip(head: bytes) -> bool:
    return head[:4] in (b"PK\3\4", b"PK\5\6", b"PK\7\x08")


def zip_(look: Look) -> Structure:
    """Complete: the end record stands at the very end, the central directory lies exactly before it and begins where it
    says, and members have the headers that it speaks of: those of another archive mean that one was half written over.
    Of a directory above 128 KiB only that its first entry is there."""
    if look.at(0, 4) == b"PK\7\x08":
        return unknown("zip", "It is one volume of several.")
    tail = look.tail(_END.size + 65_535)
    start = look.size - len(tail)
    place = _end_record(tail)
    if place is None:
        last = tail.rfind(b"PK\5\6")
        if last >= 0 and any(tail[last + _END.size :]):
            return unknown("zip", "Its end record is not the last thing in it.")
        return torn("zip", "The end of central directory record is missing.")
    _, disk, first_disk, _, entries, length, offset, _ = _END.unpack_from(tail, place)
    ends = start + place
    if ends >= _LOCATOR.size and (locator := look.at(ends - _LOCATOR.size, _LOCATOR.size))[:4] == b"PK\6\7":
        _, _, record, disks = _LOCATOR.unpack(locator)
        end64 = look.at(record, _END64.size)
        if len(end64) < _END64.size or end64[:4] != b"PK\6\6":
            return torn("zip", "The zip64 end record is not where its locator points.")
        _, rest, _, _, disk, first_disk, _, entries, length, offset = _END64.unpack(end64)
        if record + 12 + rest != ends - _LOCATOR.size or disks > 1:
            return unknown("zip", "Its zip64 end record does not fit.")
        ends = record
    if disk or first_disk:
        return unknown("zip", "It is one volume of several.")
    if offset + length != ends:
        return unknown("zip", f"Its directory ends at byte {offset + length}, its end record begins at {ends}.")
    if entries:
        whole = length <= _DIRECTORY_BYTES
        data = look.at(offset, length if whole else _CENTRAL.size)
        places = _entries(data)
        if not places:
            return torn("zip", "Its central directory is not where its end record points.")
        if whole and len(places) != entries:
            return unknown("zip", f"Its end record speaks of {entries} entries, its directory has {len(places)}.")
        other = _other_member(look, data, places) if whole else None
        if other is not None:
            return unknown("zip", f"At byte {other} there is not the member that its directory speaks of.")
    return complete("zip", f"{entries} entries in the central directory.")


def _end_record(tail: bytes) -> int | None:
    """Where the end record stands whose comment ends exactly with the file."""
    place = len(tail) - _END.size
    while place >= 0:
        place = tail.rfind(b"PK\5\6", 0, place + 4)
        if place >= 0 and place + _END.size + _END.unpack_from(tail, place)[7] == len(tail):
            return place
        place -= 1
    return None


def _entries(data: bytes) -> list[int]:
    """Where the entries of a directory begin."""
    places, place = list[int](), 0
    while data[place : place + 4] == b"PK\1\2" and place + _CENTRAL.size <= len(data):
        fields = _CENTRAL.unpack_from(data, place)
        places.append(place)
        place += _CENTRAL.size + fields[10] + fields[11] + fields[12]
    return places


_LOCAL = struct.Struct("<4s5H3L2H")
_LATER = 0x0008
"""Flag: checksum and sizes come behind the data, and the header has none or zeros."""


def _other_member(look: Look, data: bytes, places: list[int]) -> int | None:
    """Where a member should begin whose header is not the one that the directory speaks of. Looks at the first, the
    last and members evenly between them."""
    step = max(1, -(-len(places) // _COMPARED_MEMBERS))
    for place in sorted({*places[::step], *places[-1:]}):
        _, _, _, flags, method, _, _, checksum, packed, size, name, *_ = _CENTRAL.unpack_from(data, place)
        at = int.from_bytes(data[place + _CENTRAL.size - 4 : place + _CENTRAL.size], "little")
        if at == 0xFFFF_FFFF:
            continue  # zip64: its place stands in an extra field
        head = look.at(at, _LOCAL.size + name)
        if len(head) < _LOCAL.size + name or head[:4] != b"PK\3\4":
            return at
        _, _, its_flags, its_method, _, _, its_checksum, its_packed, its_size, its_name, _ = _LOCAL.unpack_from(head)
        title = data[place + _CENTRAL.size : place + _CENTRAL.size + name]
        if its_method != method or its_name != name or (title and head[_LOCAL.size :] != title):
            return at
        told = ((its_checksum, checksum), (its_packed, packed), (its_size, size))
        if not (flags | its_flags) & _LATER and any(a != b and 0xFFFF_FFFF not in (a, b) for a, b in told):
            return at
    return None
