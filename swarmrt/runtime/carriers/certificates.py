"""TLS certificates that prove a libp2p identity.

Each process makes a TLS key for its lifetime, and a certificate for it with an extension: the
public key of its identity, and that key's signature over the TLS key. TLS 1.3 proves that the other
end has the TLS key; the extension proves whose it is. The idea is that of the libp2p TLS
specification, https://github.com/libp2p/specs/blob/master/tls/tls.md; the encoding is our own.

OpenSSL, as Python exposes it, demands a client's certificate only when an authority has signed it.
So all of ours are signed by a formal authority whose private key is the number 1. Anybody can sign
with it; it vouches for nothing, and `peer_of_certificate` must be asked who the other end is.
"""

from __future__ import annotations

import datetime
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgpack
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hivemind.utils.crypto import RSAPublicKey

from swarmrt.errors import WireError
from swarmrt.ids import PeerId
from swarmrt.runtime.access.identity import Identity, peer_of_public_key

PREFIX = b"swarmrt-tls-1:"  # of what is signed, so that it can be taken for nothing else
# An arc of our own: 2.25 and a UUID, as ITU-T X.667 has it.
EXTENSION = x509.ObjectIdentifier("2.25.202156433223055525864144620508327555506")
AUTHORITY = ec.derive_private_key(1, ec.SECP256R1())
AUTHORITY_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "swarmrt anybody")])
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "swarmrt peer")])
# Clocks of strangers may be wrong; what ends a certificate is the end of its process.
SLACK = datetime.timedelta(days=365)
LIFE = datetime.timedelta(days=3650)
MAX_CERTIFICATE_BYTES = 8 << 10


@dataclass(frozen=True)
class Contexts:
    """TLS 1.3 with a certificate demanded of both ends."""

    dialing: ssl.SSLContext
    listening: ssl.SSLContext


def make_contexts(identity: Identity) -> Contexts:
    """A new TLS key and its certificate, for both roles. The key is in a file for an instant."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = make_certificate(identity, key)
    with tempfile.TemporaryDirectory(prefix="swarmrt-tls-") as folder:  # only its owner can read it
        pem = Path(folder) / "pem"
        pem.write_bytes(_private_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
        return Contexts(
            _context(ssl.PROTOCOL_TLS_CLIENT, pem), _context(ssl.PROTOCOL_TLS_SERVER, pem)
        )


def make_certificate(identity: Identity, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Make a certificate for this TLS key, signed for by this identity."""
    public = identity.private_key.get_public_key().to_bytes()
    signature = identity.private_key.sign(PREFIX + _spki(key.public_key()))
    extension = x509.UnrecognizedExtension(EXTENSION, msgpack.packb([public, signature]))
    return (
        _builder(NAME, key.public_key())
        .add_extension(extension, critical=False)
        .sign(AUTHORITY, hashes.SHA256())
    )


def peer_of_certificate(der: bytes) -> PeerId:
    """The peer that has signed for the certificate's key. Raises WireError when none has.

    TLS must have proved that the other end has that key.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise WireError(f"a certificate of {len(der)} bytes; at most {MAX_CERTIFICATE_BYTES}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        extension = certificate.extensions.get_extension_for_oid(EXTENSION).value
        assert isinstance(extension, x509.UnrecognizedExtension)
        match msgpack.unpackb(extension.value):
            case [bytes(public), bytes(signature)]:
                peer = peer_of_public_key(public)
                signed = PREFIX + _spki(certificate.public_key())
                if RSAPublicKey.from_bytes(public).verify(signed, signature):
                    return peer
                raise WireError("the certificate's signature is not that of its identity")
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise WireError(f"the certificate names no identity: {error}") from None
    except (UnsupportedAlgorithm, msgpack.UnpackException) as error:
        raise WireError(f"the certificate cannot be read: {error}") from None
    raise WireError("the certificate's extension is not [public key, signature]")


def _context(protocol: int, pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # who the other end is does not depend on where it is
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=_authority().public_bytes(serialization.Encoding.DER))
    context.load_cert_chain(pem)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # every connection proves its identity anew
    return context


def _authority() -> x509.Certificate:
    return (
        _builder(AUTHORITY_NAME, AUTHORITY.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(AUTHORITY, hashes.SHA256())
    )


def _builder(name: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(AUTHORITY_NAME)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + LIFE)
    )


def _spki(key: object) -> bytes:
    """The key as X.509 has it: which kind of key, and its value."""
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("its TLS key is not of an elliptic curve")
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
