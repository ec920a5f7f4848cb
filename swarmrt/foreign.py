"""Words of other processes, made fit to be shown to people.

A terminal obeys what is printed on it, and a log is read line by line: what somebody else has
written must look like what it is. Whoever puts such words into a message, an error or a log uses
`printable`. What prints whole texts of ours, which may have lines, uses `for_terminal`, in case
some have come through.
"""

from __future__ import annotations

MAX_CHARACTERS = 200
LAYOUT = "\n\t"


def printable(text: str, limit: int = MAX_CHARACTERS) -> str:
    """Return one line of at most `limit` characters. What is not printable is written as an escape.

    Line breaks, control characters, terminal escapes and marks that turn the direction of writing
    are not printable. Doing it again changes nothing.
    """
    cut = text[: limit + 1]  # an escape is never shorter than its character
    shown = cut if cut.isprintable() else "".join(map(_shown, cut))
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def for_terminal(text: str) -> str:
    """A text with its lines and tabs as they are, and all else that is not printable as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c in LAYOUT else _shown(c) for c in text)


def _shown(character: str) -> str:
    """Return how a character is shown: as `\x1b`, if it is an escape."""
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
