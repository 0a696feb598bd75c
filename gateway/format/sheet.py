"""The recovery sheet: 32 secret bytes as words for paper (docs/format/README.md section 5.4)."""

from __future__ import annotations

import re
from hashlib import sha256

from gateway.errors import UsageError
from gateway.format import limits

_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aiou"
_SHAPE = (_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS, _CONSONANTS)
# Letters are named in both cases: `re.IGNORECASE` would take the Kelvin sign for a k. No `\s` before a `^` or behind
# one: over many empty lines that would be quadratic.
_LINE = re.compile(r"^[^\S\n]*([1-4])[^\S\n]+((?:[a-zA-Z]{5}[ \t-]+){4}[a-zA-Z]{5})[^\S\n]*$", re.MULTILINE)
_ID = re.compile(r"^[^\S\n]*repository id:(.*)$", re.MULTILINE)


def word(value: int) -> str:
    """Five letters for 16 bits."""
    return (
        _CONSONANTS[value >> 12]
        + _VOWELS[value >> 10 & 3]
        + _CONSONANTS[value >> 6 & 15]
        + _VOWELS[value >> 4 & 3]
        + _CONSONANTS[value & 15]
    )


def _value(text: str) -> int:
    value = 0
    for letter, alphabet, bits in zip(text.lower(), _SHAPE, (4, 2, 4, 2, 4), strict=True):
        value = value << bits | alphabet.index(letter)
    return value


def _check(number: int, data: bytes) -> int:
    return int.from_bytes(sha256(b"gateway/v1/sheet" + bytes([number]) + data).digest()[:2])


def lines(secret: bytes) -> list[str]:
    """The four lines of words of a 32-byte secret."""
    out = []
    for number in range(1, 5):
        data = secret[8 * (number - 1) : 8 * number]
        values = [int.from_bytes(data[i : i + 2]) for i in range(0, 8, 2)] + [_check(number, data)]
        out.append(f"{number}  " + "  ".join(word(value) for value in values))
    return out


def render(secret: bytes, *, url: str, region: str, endpoint: str, repository: bytes, slot: bytes, created: str) -> str:
    """The whole sheet, as printed."""
    facts = [
        ("repository", url),
        ("region", region),
        ("endpoint", endpoint),
        ("repository id", repository.hex()),
        ("key slot", slot.hex()),
        ("created", created),
    ]
    return "\n".join(
        [
            "BACKUP GATEWAY - RECOVERY SHEET",
            "",
            "Keep this on paper, away from the gateway and from the bucket. With it and the bucket",
            "everything comes back; whoever has both can read everything.",
            "",
            *(f"{name}: {value}" for name, value in facts if value),
            "",
            *lines(secret),
            "",
            "The last word of each line is a checksum of the line.",
            "To use it: gateway rebuild --recovery-sheet FILE, FILE holding at least the four numbered lines.",
            "",
        ]
    )


def parse(text: str) -> tuple[bytes, bytes | None]:
    """Secret and, where the sheet names it, the repository's id. `UsageError` says which line is wrong."""
    if len(text.encode("utf-8", "surrogatepass")) > limits.SHEET_BYTES:
        raise UsageError("The recovery sheet is too large to be one.")
    found: dict[int, bytes] = {}
    for match in _LINE.finditer(text):
        number = int(match[1])
        try:
            values = [_value(each) for each in re.split(r"[ \t-]+", match[2])]
        except ValueError as error:
            raise UsageError(
                f"Line {number} of the recovery sheet has a word that cannot be one.",
                advice="Words are consonant, vowel, consonant, vowel, consonant.",
            ) from error
        data = b"".join(value.to_bytes(2) for value in values[:4])
        if values[4] != _check(number, data):
            raise UsageError(
                f"Line {number} of the recovery sheet has a wrong word: its checksum does not match.",
                advice="Compare the line with the paper, letter by letter.",
            )
        if found.setdefault(number, data) != data:
            raise UsageError(f"Line {number} stands twice in the recovery sheet, with different words.")
    missing = [str(number) for number in range(1, 5) if number not in found]
    if missing:
        raise UsageError(
            f"The recovery sheet lacks line {', '.join(missing)}.",
            advice="Each of its four lines is a number from 1 to 4 and five words of five letters.",
        )
    return b"".join(found[n] for n in range(1, 5)), _repository(text)


def _repository(text: str) -> bytes | None:
    named = {each.strip().lower() for each in _ID.findall(text)}
    if not named:
        return None
    if len(named) > 1 or not re.fullmatch("[0-9a-f]{32}", next(iter(named))):
        raise UsageError(
            "The line 'repository id:' of the recovery sheet is wrong.",
            advice="It is 32 digits from 0 to 9 and a to f. Without that line the sheet is read too.",
        )
    return bytes.fromhex(named.pop())
