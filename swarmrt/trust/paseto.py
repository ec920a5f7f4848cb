"""PASETO v4.public: a JSON text and its Ed25519 signature in one printable line.

The format is that of https://github.com/paseto-standard/paseto-spec (docs/01-Protocol-Versions,
Version4). It has one algorithm and no field that names another.
"""

from __future__ import annotations

import base64
import binascii
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from swarmrt.errors import AccessError

HEADER = "v4.public."
SIGNATURE_BYTES = 64
MAX_CHARACTERS = 64 << 10  # of a token; a run's record with its configuration has some thousand


def sign(key: Ed25519PrivateKey, message: bytes, footer: bytes = b"") -> str:
    """Return the token of a message. The footer is signed too, and can be read before."""
    signature = key.sign(_authenticated(message, footer))
    token = HEADER + to_text(message + signature)
    return f"{token}.{to_text(footer)}" if footer else token


def footer_of(token: str) -> bytes:
    """Return a token's footer, which nobody has vouched for yet. Raises AccessError."""
    return _parts(token)[1]


def verify(token: str, key: Ed25519PublicKey) -> bytes:
    """Return the message of a token that this key has signed. Raises AccessError."""
    body, footer = _parts(token)
    message, signature = body[:-SIGNATURE_BYTES], body[-SIGNATURE_BYTES:]
    try:
        key.verify(signature, _authenticated(message, footer))
    except InvalidSignature:
        raise AccessError("a statement's signature is wrong") from None
    return message


def to_text(data: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """Read unpadded base64url in its one canonical form. Raises AccessError."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise AccessError("a statement is not in base64url") from None
    if to_text(data) != text:
        raise AccessError("a statement is not in canonical base64url")
    return data


def _parts(token: str) -> tuple[bytes, bytes]:
    if len(token) > MAX_CHARACTERS or not token.startswith(HEADER):
        raise AccessError("not a statement of the form v4.public.…")
    body_text, _, footer_text = token.removeprefix(HEADER).partition(".")
    body = from_text(body_text)
    if len(body) < SIGNATURE_BYTES:
        raise AccessError("a statement is too short")
    return body, from_text(footer_text)


def _authenticated(message: bytes, footer: bytes, implicit: bytes = b"") -> bytes:
    """Encode what is signed so that no two lists of pieces look alike ("PAE" in the spec)."""
    pieces = (HEADER.encode(), message, footer, implicit)
    lengths_and_pieces = (struct.pack("<Q", len(piece)) + piece for piece in pieces)
    return struct.pack("<Q", len(pieces)) + b"".join(lengths_and_pieces)
