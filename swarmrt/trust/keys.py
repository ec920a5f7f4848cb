"""Ed25519 keys: that of an owner in a file that only its user can read, and names made of them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from swarmrt.errors import AccessError

FINGERPRINT_BYTES = 16


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return the first 16 bytes of the key's SHA-256, in 26 characters of base32."""
    digest = hashlib.sha256(public_bytes(key)).digest()[:FINGERPRINT_BYTES]
    return base64.b32encode(digest).decode().rstrip("=").lower()


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """Return the key's 32 bytes."""
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def private_bytes(key: Ed25519PrivateKey) -> bytes:
    """Return the key's 32 bytes, which are secret."""
    return key.private_bytes(
        serialization.Encoding.Raw,
        serialization.PrivateFormat.Raw,
        serialization.NoEncryption(),
    )


def public_key_of(data: bytes) -> Ed25519PublicKey:
    """Return the key of these 32 bytes. Raises AccessError."""
    try:
        return Ed25519PublicKey.from_public_bytes(data)
    except ValueError:
        raise AccessError("a public key must have 32 bytes") from None


def private_key_of(data: bytes) -> Ed25519PrivateKey:
    """Return the key of these 32 bytes. Raises AccessError."""
    try:
        return Ed25519PrivateKey.from_private_bytes(data)
    except ValueError:
        raise AccessError("a private key must have 32 bytes") from None


def open_owner_key(path: Path) -> Ed25519PrivateKey:
    """Load the owner key, or make one that only its user can read. Raises AccessError."""
    try:
        if not path.exists():
            with contextlib.suppress(FileExistsError):  # another process was faster
                write_owner_key(path, Ed25519PrivateKey.generate())
        return load_owner_key(path)
    except OSError as error:
        raise AccessError(f"owner key {path}: {error.strerror}") from None


def load_owner_key(path: Path) -> Ed25519PrivateKey:
    """Load a key file, as PKCS #8 in PEM. Raises AccessError or OSError."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise AccessError(f"owner key {path}: is not an Ed25519 key in PEM")
    return key


def write_owner_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write a key file. One that is there stays. Raises FileExistsError or OSError."""
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # fails where another process was faster
    finally:
        temporary.unlink()
