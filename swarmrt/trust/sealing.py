"""Targets travel sealed: they are the training text, and only the last stage needs them.

A microbatch's targets are sealed with ChaCha20-Poly1305 (RFC 8439) under a key that the trainer
gives to those who serve the last stage. The nonce is the microbatch, whose targets never change, so
that whoever sends it again sends the same bytes.
"""

from __future__ import annotations

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swarmrt.errors import AccessError
from swarmrt.ids import MicrobatchId
from swarmrt.trust.signing import Signer

KEY_BYTES = 32
TAG_BYTES = 16


def targets_key(signer: Signer, data: bytes) -> bytes:
    """Return the key of a run's targets, which is equal in all its incarnations.

    `data` is a digest of whatever decides which targets a microbatch has: with other data the key
    is another one, so that no two texts are ever sealed by one key and nonce.
    """
    info = b"swarmrt targets " + str(signer.run).encode() + b" " + data
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(signer.secret)


def key_of(text: str) -> bytes:
    """Return the key that a Welcome has in hex; nothing for none. Raises AccessError."""
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b"?"
    if len(key) not in (0, KEY_BYTES):
        raise AccessError("the trainer's key for targets is none")
    return key


def seal(key: bytes, microbatch: MicrobatchId, targets: bytes) -> bytes:
    """Return the sealed bytes, longer than the targets by TAG_BYTES."""
    return ChaCha20Poly1305(key).encrypt(_nonce(microbatch), targets, None)


def unseal(key: bytes, microbatch: MicrobatchId, sealed: bytes) -> bytes:
    """Return the targets. Raises AccessError when they were sealed by another key or changed."""
    try:
        return ChaCha20Poly1305(key).decrypt(_nonce(microbatch), sealed, None)
    except InvalidTag:
        raise AccessError(f"the targets of microbatch {microbatch} cannot be opened") from None


def _nonce(microbatch: MicrobatchId) -> bytes:
    return struct.pack(">QI", microbatch.step, microbatch.index << 1 | microbatch.held_out)
