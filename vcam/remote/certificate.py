"""The server's certificate: made at the first start, known by its fingerprint; or the user's own."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from vcam import client
from vcam.errors import RemoteError

CERTIFICATE_FILE, KEY_FILE = "certificate.pem", "key.pem"
LASTS_DAYS = 3650  # it is pinned, and changed by deleting the file


@dataclass(frozen=True)
class Certificate:
    """Files of a server's certificate (chain) and key. fingerprint: SHA-256 to be pinned; "" where a CA vouches."""

    certificate: Path
    key: Path
    fingerprint: str


def fingerprint_of(der: bytes) -> str:
    """Return the SHA-256 of a certificate (DER), in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def own_certificate(certificate: Path, key: Path) -> Certificate:
    """Return the user's own, which a CA that the cameras know vouches for. Raises RemoteError if it cannot be used."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise RemoteError(f"{certificate} and {key} are no certificate and its key ({error})") from error
    return Certificate(certificate, key, "")


def made_certificate(folder: Path) -> Certificate:
    """Return the server's certificate in `folder`, made at the first start. Raises RemoteError."""
    certificate, key = folder / CERTIFICATE_FILE, folder / KEY_FILE
    try:
        client.private_folder(folder)
        if not (certificate.exists() and key.exists()):
            _make(certificate, key)
        found = own_certificate(certificate, key)
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise RemoteError(
            f"{folder}: the certificate cannot be made or read ({error}); make room, or delete it"
        ) from error
    return Certificate(found.certificate, found.key, fingerprint_of(der))


def _make(certificate: Path, key: Path) -> None:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as error:
        raise RemoteError(
            f'to make a certificate the package cryptography is needed ({error}): pip install "streamv2v-camera[serve]"'
        ) from error

    own = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "StreamV2V Camera")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
    if (host := socket.gethostname()).isascii() and host not in ("", "localhost"):
        names.append(x509.DNSName(host))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # the other machine's clock may be behind
        .not_valid_after(now + datetime.timedelta(days=LASTS_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(own, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    pem = own.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    client.write_private(key, pem.decode())
    client.write_private(certificate, made.public_bytes(serialization.Encoding.PEM).decode())
    os.chmod(key, 0o600)
