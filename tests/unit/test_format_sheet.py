"""The recovery sheet: what a tired person types from paper gives the secret or an error, never another secret."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UsageError
from gateway.format import limits, sheet
from tests.unit.format_values import REPOSITORY, some

SECRET = some("sheet", 32)
LINES = sheet.lines(SECRET)
TEXT = "\n".join(LINES) + "\n"
WHOLE = sheet.render(
    SECRET,
    url="s3://bucket/prefix",
    region="eu-central-1",
    endpoint="",
    repository=REPOSITORY,
    slot=some("slot", 16),
    created="2026-11-25T07:00:00Z",
)
secrets = st.binary(min_size=32, max_size=32)


def parsed(text: str) -> bytes | None:
    try:
        return sheet.parse(text)[0]
    except UsageError:
        return None


@given(secrets)
def test_what_is_printed_is_read_back(secret: bytes) -> None:
    assert sheet.parse("\n".join(sheet.lines(secret))) == (secret, None)
    printed = sheet.render(
        secret, url="file:///x", region="", endpoint="", repository=secret[:16], slot=secret[16:], created="now"
    )
    assert sheet.parse(printed) == (secret, secret[:16])
    assert printed.isascii()


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1))
def test_words_are_five_letters_and_each_is_another_value(one: int, other: int) -> None:
    assert sheet._value(sheet.word(one)) == one
    assert len(sheet.word(one)) == 5
    assert (sheet.word(one) == sheet.word(other)) == (one == other)


def test_words_of_the_specification() -> None:
    assert sheet.word(0) == "babab"
    assert sheet.word(0xFFFF) == "zuzuz"
    assert sheet.word(0b0001_01_0010_10_0011) == "difog"


def test_every_single_wrong_letter_is_caught() -> None:
    letters = [at for at, each in enumerate(TEXT) if each.isalpha()]
    assert len(letters) == 4 * 25
    for at in letters:
        for letter in string.ascii_lowercase:
            if letter != TEXT[at]:
                with pytest.raises(UsageError, match=f"Line {TEXT.count(chr(10), 0, at) + 1}"):
                    sheet.parse(TEXT[:at] + letter + TEXT[at + 1 :])


def test_every_other_single_wrong_key_is_caught_or_harmless() -> None:
    for at in range(len(TEXT)):
        for typed in string.digits + string.punctuation + " \t\n\r\u017f\u212a\u00a0\0":
            assert parsed(TEXT[:at] + typed + TEXT[at + 1 :]) in (None, SECRET)
        assert parsed(TEXT[:at] + TEXT[at + 1 :]) in (None, SECRET)
        for typed in "b1 -\n":
            assert parsed(TEXT[:at] + typed + TEXT[at:]) in (None, SECRET)


@given(secrets, st.data())
def test_swapped_words_and_letters_are_caught(secret: bytes, data: st.DataObject) -> None:
    rows = [line.split() for line in sheet.lines(secret)]
    row = rows[data.draw(st.integers(0, 3))]
    one, other = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    same = row[one] == row[other]
    row[one], row[other] = row[other], row[one]
    # A checksum of 16 bits: in 65,536 swaps one is not seen here but by the slot's commitment.
    assert (parsed("\n".join(map(" ".join, rows))) == secret) == same


def test_a_line_is_bound_to_its_number() -> None:
    for one in range(4):
        for other in range(4):
            if one != other:
                rows = list(LINES)
                rows[one] = str(other + 1) + rows[one][1:]
                assert parsed("\n".join(rows)) is None


@pytest.mark.parametrize(
    "text",
    [
        TEXT.upper(),
        TEXT.title(),
        TEXT.replace("  ", " "),
        TEXT.replace("  ", "\t"),
        "\n".join(line[0] + " " + "-".join(line.split()[1:]) for line in LINES),
        "\n".join(line[0] + " " + " - ".join(line.split()[1:]) for line in LINES),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "   \n"),
        TEXT.replace("\n", "\n\n\n"),
        "".join("   \t" + line + "\n" for line in LINES),
        "\n".join(reversed(LINES)),
        "\n".join([LINES[2], LINES[0], LINES[3], LINES[1]]),
        TEXT + TEXT,
        TEXT[:-1],
        "notes 1 of mine\n1\n5  babab babab babab babab babab\n" + TEXT + "\nlast changed 2 years ago\n",
        WHOLE,
        WHOLE.replace("\n", "\r\n"),
        "\ufeff\n" + WHOLE,
    ],
)
def test_spellings_that_are_read(text: str) -> None:
    assert sheet.parse(text)[0] == SECRET


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("", "1, 2, 3, 4"),
        ("\n".join(LINES[1:]), "line 1"),
        ("\n".join(LINES[:3]), "line 4"),
        (TEXT.replace("\n", "\r"), "1, 2, 3, 4"),
        (TEXT.replace("\n", " "), "1, 2, 3, 4"),
        (TEXT.replace(LINES[1], "> " + LINES[1]), "line 2"),
        (TEXT.replace(LINES[1], LINES[1] + " and a remark"), "line 2"),
        (TEXT.replace(LINES[1], LINES[1] + "  babab"), "line 2"),
        (TEXT.replace(LINES[1], LINES[1][:-7]), "line 2"),
        (TEXT.replace("3  ", "\u0663  "), "line 3"),
        (TEXT.replace("3  ", "33  "), "line 3"),
        (TEXT.replace("3  ", "3"), "line 3"),
    ],
)
def test_a_line_that_is_not_there_is_named(text: str, lacks: str) -> None:
    with pytest.raises(UsageError, match=lacks):
        sheet.parse(text)


def test_one_line_with_two_contents_is_refused() -> None:
    with pytest.raises(UsageError, match="Line 3 stands twice"):
        sheet.parse(TEXT + sheet.lines(bytes(32))[2])


def test_only_letters_of_ascii_are_letters() -> None:
    """Case folding makes a k of the Kelvin sign and an s of the long s: not what is on the paper."""
    for letter, foreign in (("k", "\u212a"), ("s", "\u017f")):
        at = TEXT.index(letter)
        assert parsed(TEXT[:at] + foreign + TEXT[at + 1 :]) is None


def test_the_repository_the_sheet_names() -> None:
    assert sheet.parse(WHOLE) == (SECRET, REPOSITORY)
    assert sheet.parse(WHOLE.replace(REPOSITORY.hex(), REPOSITORY.hex().upper())) == (SECRET, REPOSITORY)
    assert sheet.parse(WHOLE + f"\r\n  repository id: {REPOSITORY.hex()}  \r\n") == (SECRET, REPOSITORY)
    assert sheet.parse(TEXT + "the repository id: is unknown") == (SECRET, None)


@pytest.mark.parametrize("typed", ["", "0" * 31, "0" * 33, "g" * 32, "0" * 32 + " x", "\u0660" * 32])
def test_a_repository_that_cannot_be_one_is_an_error_and_not_passed_over(typed: str) -> None:
    with pytest.raises(UsageError, match="repository id"):
        sheet.parse(WHOLE.replace(REPOSITORY.hex(), typed))


def test_two_repositories_on_one_sheet_are_refused() -> None:
    with pytest.raises(UsageError, match="repository id"):
        sheet.parse(WHOLE + "\nrepository id: " + "0" * 32)


def test_the_bound_is_in_bytes() -> None:
    assert sheet.parse(TEXT + " " * (limits.SHEET_BYTES - len(TEXT)))[0] == SECRET
    for more in (" " * (limits.SHEET_BYTES - len(TEXT) + 1), "\u00e9" * (limits.SHEET_BYTES // 2), "\udcff" * 30_000):
        with pytest.raises(UsageError, match="too large"):
            sheet.parse(TEXT + more)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "filling", ["\n", " ", "\r", "1 \n", "1\n", " \n", "repository id:\n"[:-1], "1 babab-babab ", "\f\n"]
)
def test_no_filling_makes_reading_slow(filling: str) -> None:
    """Quadratic matching over a sheet of the allowed size would take minutes."""
    room = (limits.SHEET_BYTES - len(WHOLE) - 3) // len(filling)
    for text in (filling * room + "x", WHOLE + filling * room + "x", filling * room + "\n" + WHOLE):
        parsed(text)


@given(st.text(max_size=200))
def test_arbitrary_text_never_raises_anything_else(text: str) -> None:
    assert parsed(text) is None


@given(st.text("1234 -bdfgaiou\n", max_size=200))
def test_text_like_a_sheet_never_raises_anything_else(text: str) -> None:
    assert parsed(text) is None
