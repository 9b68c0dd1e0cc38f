"""Who signs Content Credentials: a certificate of the user's, or one that is made on this machine and stays there."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core import folders
from vcam.errors import VideoError

if TYPE_CHECKING:
    from cryptography import x509

_VALID = datetime.timedelta(days=3650)
_EARLIER = datetime.timedelta(days=1)  # a clock that is set back a little shall not make it invalid
_CERTIFICATES = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Identity:
    """A signer. chain: its certificate, then those above it; key: its own (PEM). algorithm: as C2PA names it."""

    chain: bytes
    key: bytes = field(repr=False)
    algorithm: str


def configured_identity(certificate: Path | None, key: Path | None) -> Identity | None:
    """Return the identity in these files, None where none are named; raise VideoError or OSError."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise VideoError("[marking] needs certificate and key together, or neither: then one is made on this machine")
    chain = b"".join(_CERTIFICATES.findall(certificate.read_bytes()))
    if not chain:
        raise VideoError(f"[marking] certificate {certificate} holds no certificate in PEM form")
    secret = key.read_bytes()
    return Identity(chain, secret, _algorithm(key, secret))


def own_identity(folder: Path | None = None) -> Identity:
    """Return this machine's own identity, made where there is none that is valid today; raise OSError."""
    kept = (folder or folders.data() / "content-credentials") / "signer.pem"
    with contextlib.suppress(FileNotFoundError):
        data = kept.read_bytes()
        if _is_good(data):
            return _own(data)
    data = _made()
    folders.make(kept.parent)
    number, part = tempfile.mkstemp(dir=kept.parent)  # of mode 0600
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        os.replace(part, kept)  # two programs may do so at once: either is whole
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return _own(kept.read_bytes())


def _own(data: bytes) -> Identity:
    chain = _CERTIFICATES.findall(data)
    return Identity(b"".join(chain), data.replace(b"".join(chain), b""), "es256")


def _is_good(data: bytes) -> bool:
    """Return whether the file is whole, and its certificate valid today."""
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(data)
    except ValueError:
        return False
    now = datetime.datetime.now(datetime.UTC)
    whole = b"PRIVATE KEY-----" in data and len(certificates) == 2
    return whole and certificates[0].not_valid_before_utc <= now < certificates[0].not_valid_after_utc


def _made() -> bytes:
    """Return a new key, its certificate, and that of an authority that signed it and nothing else: its key is gone.

    The names say nothing of the machine or its user.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    above, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _name("Root of StreamV2V Camera on one machine")
    authority = (
        _certificate(root, root, above.public_key())
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(above, hashes.SHA256())
    )
    signer = (
        _certificate(_name("StreamV2V Camera on one machine"), root, own.public_key())
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
        .sign(above, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signer.public_bytes(pem) + authority.public_bytes(pem) + key


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    parts = ((NameOID.ORGANIZATION_NAME, "StreamV2V Camera"), (NameOID.COMMON_NAME, common))
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in parts])


def _certificate(subject: x509.Name, issuer: x509.Name, public: object) -> x509.CertificateBuilder:
    from cryptography import x509

    begins = datetime.datetime.now(datetime.UTC) - _EARLIER
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)  # type: ignore[arg-type]
    )


def _usage(authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _algorithm(path: Path, secret: bytes) -> str:
    """Return how C2PA calls what this key signs with; raise VideoError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(secret, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        raise VideoError(f"[marking] key {path} is no private key in PEM form without a password") from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise VideoError(f"[marking] key {path} is of a kind that C2PA does not know; P-256, P-384, P-521, RSA or Ed25519")
