"""The identity of a process: a libp2p RSA key in a file, which also signs directory records."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hivemind.p2p.p2p_daemon_bindings.datastructures import PeerID
from hivemind.proto import crypto_pb2
from hivemind.utils.crypto import RSAPrivateKey

from swarmrt.errors import UsageError
from swarmrt.ids import PeerId


@dataclass(frozen=True)
class Identity:
    path: Path | None  # the key file, as libp2p reads it
    data: bytes  # that are in it
    peer_id: PeerId
    private_key: RSAPrivateKey

    def file_for(self, folder: Path) -> Path:
        """Return the key file; of an identity without one, or whose file is gone, one in this
        folder."""
        if self.path is not None and self.path.exists():
            return self.path
        path = folder / "identity"
        _write(path, self.data)
        return path


def new_identity() -> Identity:
    """Return an identity that no file has."""
    return _identity_of(_new_key(), None)


def open_identity(path: Path) -> Identity:
    """Load the key file, or make one that only its owner can read. Raises UsageError."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, _new_key())
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"identity file {path}: {error.strerror}") from None
    return _identity_of(data, path)


def _identity_of(data: bytes, path: Path | None) -> Identity:
    """Return the identity of a key. Raises UsageError when it is none."""
    try:
        der = crypto_pb2.PrivateKey.FromString(data).data
        key = serialization.load_der_private_key(der, password=None)
    except Exception:  # noqa: BLE001 - protobuf and cryptography raise many kinds
        raise UsageError(f"identity file {path}: is not a libp2p RSA key") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise UsageError(f"identity file {path}: is not an RSA key")
    private_key = RSAPrivateKey.__new__(RSAPrivateKey)  # its constructor would make a new key
    private_key._private_key = key
    return Identity(path, data, PeerId(PeerID.from_identity(data).to_base58()), private_key)


def peer_of_public_key(openssh: bytes) -> PeerId:
    """The peer that a public key belongs to, in OpenSSH's text form. Raises ValueError.

    Only the canonical text is taken: with a comment, say, one peer could pass for several.
    """
    try:
        key = serialization.load_ssh_public_key(openssh)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("the key is not an RSA key")
    canonical = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    if canonical != openssh:
        raise ValueError("the key is not in its canonical form")
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    encoded = crypto_pb2.PublicKey(key_type=crypto_pb2.RSA, data=der).SerializeToString()
    return PeerId(PeerID(_multihash(encoded)).to_base58())


def _multihash(data: bytes) -> bytes:
    """Return the SHA-256 with its multihash prefix: https://github.com/multiformats/multihash."""
    digest = hashlib.sha256(data).digest()
    return bytes([0x12, len(digest)]) + digest


def _new_key() -> bytes:
    der = RSAPrivateKey().to_bytes()
    return bytes(crypto_pb2.PrivateKey(key_type=crypto_pb2.RSA, data=der).SerializeToString())


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.rename(path)
