"""TLS for queens and hives: keys, certificate requests, fingerprints, contexts, and tokens.

Only TLS 1.3. Neither host names nor public authorities are trusted: a hive trusts the CA whose fingerprint
came with its token, and the queen trusts the certificates of that CA. So every queen's certificate is for
QUEEN_NAME, whatever its address, and stays valid after a move.

The package `cryptography` is imported only when a certificate is made or read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path

from rbee.errors import BadInput

QUEEN_NAME = "queen-rbee"
"""The one name in a queen's certificate."""

RENEW_AT = 2 / 3
"""The part of a certificate's validity after which it is renewed."""


def new_key() -> str:
    """Return a new private key in PEM: EC, P-256."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def request_for(key: str) -> str:
    """Return a PKCS #10 request in PEM for a private key. It has no name: the queen adds it when signing."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = serialization.load_pem_private_key(key.encode(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    request = (
        x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()


def fingerprint(certificate: str) -> str:
    """Return the SHA-256 of a certificate in PEM, as 64 hexadecimal digits. Raises BadInput."""
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.strip() + "\n")).hexdigest()
    except ValueError as error:
        raise BadInput(f"it is not a certificate: {error}") from error


def has_fingerprint(certificate: str, wanted: str) -> bool:
    """Is it a certificate in PEM with this fingerprint?"""
    try:
        return hmac.compare_digest(fingerprint(certificate), wanted)
    except BadInput:
        return False


def life_of(certificate: str) -> tuple[datetime, datetime]:
    """Return from when and until when a certificate in PEM is valid. Raises ValueError."""
    from cryptography import x509

    loaded = x509.load_pem_x509_certificate(certificate.encode())
    if hasattr(loaded, "not_valid_after_utc"):  # from cryptography 42 on, which deprecates the other
        return loaded.not_valid_before_utc, loaded.not_valid_after_utc
    return loaded.not_valid_before.replace(tzinfo=UTC), loaded.not_valid_after.replace(tzinfo=UTC)


def fault_of(certificate: str) -> str | None:
    """Return why a certificate is not valid now, such as 'has expired on …', or None, by this clock."""
    begins, ends = life_of(certificate)
    now = datetime.now(UTC)
    if now < begins:
        fault = f"is not valid before {begins:%Y-%m-%d %H:%M} UTC"
        return f"{fault}: it was made while the clock was ahead, or this clock is behind"
    return f"has expired on {ends:%Y-%m-%d %H:%M} UTC" if ends <= now else None


def renewal_of(certificate: str) -> datetime:
    """Return when a certificate in PEM is due for renewal."""
    begins, ends = life_of(certificate)
    return begins + (ends - begins) * RENEW_AT


def client_context(ca: str, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """Return a hive's context, which trusts only this CA (PEM), with its own certificate if it has one."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    # The CA may be below an organisation's root, which is not here.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def trusting_context() -> ssl.SSLContext:
    """Return a context without verification, to fetch a CA that is then checked by its fingerprint."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_context(ca: str, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the queen's context. A client's certificate must be by this CA; one that joins has none yet."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(certificate, key)
    # Connections are kept, so no session is resumed, and a ticket would outlive the removal of a hive.
    context.num_tickets = 0
    return context


def gateway_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the gateway's context, whose clients show a key. Raises OSError if the files cannot be used."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.num_tickets = 0  # connections are kept
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


# Tokens


_TOKEN = re.compile(r"([0-9a-f]{8})\.([A-Za-z0-9_-]{32})\.([0-9a-f]{64})")

_PARTS = 8, 32, 64
"""The lengths of a token's parts."""


def token_text(token_id: str, secret: str, ca_fingerprint: str) -> str:
    """Return a token as it is copied: its id, its secret, and the fingerprint of the queen's CA."""
    return f"{token_id}.{secret}.{ca_fingerprint}"


def read_token(text: str) -> tuple[str, str, str]:
    """Return a token's id, secret, and fingerprint of the queen's CA. BadInput does not show the token."""
    match = _TOKEN.fullmatch(text.strip())
    if match is None:
        raise BadInput(
            f"the token {_damage_of(text.strip())}",
            hint="Copy the whole line that rbeectl token create printed.",
            field="token",
        )
    return match[1], match[2], match[3]


def _damage_of(text: str) -> str:
    """Return what is wrong with a token, without showing any part of it."""
    parts = text.split(".")
    if len(parts) != len(_PARTS):
        return "is not valid: expected three parts separated by dots"
    for name, part, length in zip(("first", "second", "third"), parts, _PARTS, strict=True):
        if len(part) != length:
            fault = f"its {name} part should have {length} characters, and has {len(part)}"
            break
    else:
        fault = "it has characters that no token has"
    return f"is damaged: {fault}. Was all of it copied?"
