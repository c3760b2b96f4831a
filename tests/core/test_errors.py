"""What others wrote is shown, and does nothing: on a terminal, in an error, in a page."""

from __future__ import annotations

import unicodedata

import pytest

from tam_plugin.errors import InputError, MissingDependencyError, TamNotice, check_unicode, one_line, printable

EVERYTHING = "".join(map(chr, range(0x110000)))


def acts(char: str) -> bool:
    """Whether a character can act on a terminal or change the order of text, by Unicode's own properties."""
    directions = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return (
        unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(char) in directions
        or char in "\u200e\u200f\u061c"
    )


def test_no_character_that_acts_is_left():
    assert not [char for char in one_line(EVERYTHING) if acts(char)]
    assert {char for char in printable(EVERYTHING) if acts(char)} == {"\n", "\t"}
    assert not [char for char in printable(EVERYTHING, mark="\ufffd") if acts(char) and char not in "\n\t"]


def test_everything_else_stays_as_it_is():
    kept = "".join(char for char in EVERYTHING if not acts(char)).strip()
    assert one_line(kept) == printable(kept) == kept
    assert one_line("two  blanks 'a  b.mp4'") == "two  blanks 'a  b.mp4'"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\nc", "a b c"),
        ("\x1b[2Jx", "\\x1b[2Jx"),
        ("\x9b31m", "\\x9b31m"),
        ("gnp\u202efdp", "gnp\\u202efdp"),
        ("\x7f\x00", "\\x7f\\x00"),
        ("\udcff.mp4", "\\udcff.mp4"),
    ],
)
def test_what_is_shown(text, shown):
    assert one_line(text) == shown
    for error in (InputError(text), MissingDependencyError(text), TamNotice(text)):
        assert str(error) == shown


def test_half_characters_are_refused():
    check_unicode("ü😀")
    with pytest.raises(InputError, match="half a character"):
        check_unicode("good", "\ud800")
