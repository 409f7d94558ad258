"""What both ends of a fleet's connections know of TLS: keys, requests, fingerprints, one name.

TLS 1.3 alone. Nobody trusts a name or a public authority: a hive trusts the CA whose
fingerprint came with its token, and the queen whoever that CA has signed. So every queen's
certificate is for QUEEN_NAME, whatever address she is reached at, and outlives a move.

Certificates are made with the package `cryptography`, imported where one is made or read.
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
"""The part of a certificate's life after which another is made."""


def new_key() -> str:
    """A private key in PEM: EC, P-256."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def request_for(key: str) -> str:
    """A PKCS #10 request in PEM. It names nobody: whoever signs it says who it is for."""
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
    """SHA-256 of a certificate in PEM, as 64 hexadecimal digits; BadInput for what is none."""
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.strip() + "\n")).hexdigest()
    except ValueError as error:
        raise BadInput(f"it is no certificate: {error}") from error


def has_fingerprint(certificate: str, wanted: str) -> bool:
    """Is it a certificate, and the one of that fingerprint?"""
    try:
        return hmac.compare_digest(fingerprint(certificate), wanted)
    except BadInput:
        return False


def life_of(certificate: str) -> tuple[datetime, datetime]:
    """From when to when a certificate in PEM is valid."""
    from cryptography import x509

    found = x509.load_pem_x509_certificate(certificate.encode())
    if hasattr(found, "not_valid_after_utc"):  # from cryptography 42 on, which warns of the other
        return found.not_valid_before_utc, found.not_valid_after_utc
    return found.not_valid_before.replace(tzinfo=UTC), found.not_valid_after.replace(tzinfo=UTC)


def fault_of(certificate: str) -> str | None:
    """What is wrong with a certificate's time, by this machine's clock: a verb and more; None if nothing."""
    begins, ends = life_of(certificate)
    now = datetime.now(UTC)
    if now < begins:
        told = f"is not valid before {begins:%Y-%m-%d %H:%M} UTC"
        return f"{told}: it was made while the clock was ahead, or this clock is behind"
    return f"has expired on {ends:%Y-%m-%d %H:%M} UTC" if ends <= now else None


def renewal_of(certificate: str) -> datetime:
    """When it is time to have another."""
    begins, ends = life_of(certificate)
    return begins + (ends - begins) * RENEW_AT


def client_context(ca: str, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """For a hive that trusts this CA, in PEM, alone; with its own certificate once it has one."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    # The CA may be one below an organisation's root, which nobody here has.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def trusting_context() -> ssl.SSLContext:
    """For the one question that comes before trust: which CA is it? A fingerprint judges the answer."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_context(ca: str, certificate: Path, key: Path) -> ssl.SSLContext:
    """For the queen. Whoever shows a certificate shows one of this CA's; who joins has none yet."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(certificate, key)
    # Each connection lasts: no session is ever resumed, and a ticket would outlive a removal.
    context.num_tickets = 0
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


# Tokens


_TOKEN = re.compile(r"([0-9a-f]{8})\.([A-Za-z0-9_-]{32})\.([0-9a-f]{64})")

_PARTS = 8, 32, 64
"""Their lengths."""


def token_text(token_id: str, secret: str, ca_fingerprint: str) -> str:
    """What a person copies: which token, its secret, and which queen."""
    return f"{token_id}.{secret}.{ca_fingerprint}"


def read_token(text: str) -> tuple[str, str, str]:
    """A token's id, its secret, and the fingerprint of the queen's CA; BadInput does not repeat it."""
    found = _TOKEN.fullmatch(text.strip())
    if found is None:
        raise BadInput(
            f"the token {_damage_of(text.strip())}",
            hint="Copy all of the line that rbeectl token create printed.",
            field="token",
        )
    return found[1], found[2], found[3]


def _damage_of(text: str) -> str:
    """What is wrong with a token, without any of it."""
    parts = text.split(".")
    if len(parts) != len(_PARTS):
        return "is not one: it has three parts, between dots"
    for name, part, length in zip(("first", "second", "third"), parts, _PARTS, strict=True):
        if len(part) != length:
            told = f"its {name} part should have {length} characters, and has {len(part)}"
            break
    else:
        told = "it has characters that no token has"
    return f"is damaged: {told}. Was it copied whole?"
