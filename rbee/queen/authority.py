"""The queen's CA: made at first use, it signs her own certificate and those of her hives.

In `tls` of her state directory, each file 0600: ca.crt and ca.key, queen.crt and queen.key. An
administrator who has a CA brings it as the systemd credentials rbee.ca.crt and rbee.ca.key, and
then no key of a CA is kept here.
"""

from __future__ import annotations

import errno
import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rbee import tls
from rbee.errors import BadConfig, BadInput, RbeeError
from rbee.files import cure, explained, reason, sync_folder, write_aside, write_whole
from rbee.text import decoded
from rbee.tls import QUEEN_NAME

log = logging.getLogger("rbee")

CA_LIFE = timedelta(days=10 * 365)

QUEEN_LIFE = timedelta(days=90)
"""Of the queen's certificate; like a hive's it is made anew after two thirds of it."""

HIVE_LIFE = timedelta(days=365)
"""Of a hive's: the catalog says who is one, and a machine may be off for four months."""

CLOCKS = timedelta(hours=1)
"""How far a hive's clock may be behind the queen's: certificates are valid from so long ago on."""

RSA_BITS = 2048, 8192
"""The least and the most of a hive's key, where it is RSA."""

WAY_BACK = "man queen-rbee.service, KEYS: the hives have to join again"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a hive's certificate is for; the id of a credential is the same in each that renews it."""

    hive_id: str
    credential: str


class Authority:
    """Its methods take milliseconds, and some read or write files."""

    def __init__(self, folder: Path, ca: str, ca_key: Any) -> None:
        self.ca = ca
        self.fingerprint = tls.fingerprint(ca)
        self._folder = folder
        self._ca_key = ca_key
        self._context: ssl.SSLContext | None = None

    @classmethod
    def open(cls, folder: Path, *, credentials: Path | None = None) -> Authority:
        """Load the CA, or make one where there is none; BadConfig leaves what is there as it is."""
        try:
            return cls(folder, *_given(credentials) or _kept(folder) or _made(folder))
        except OSError as error:
            place = Path(error.filename or folder)
            # A key that is gone is gone. What else is in the way can be mended, and no hive joins again.
            hint = WAY_BACK if error.errno == errno.ENOENT else cure(error, place)
            raise BadConfig(f"the keys in {place} cannot be used: {reason(error)}", hint=hint) from error
        except (ValueError, TypeError, BadInput) as error:
            place = credentials if credentials and (credentials / "rbee.ca.crt").exists() else folder
            raise BadConfig(f"the keys in {place} are not a CA's: {error}", hint=WAY_BACK) from error

    @property
    def expires(self) -> datetime:
        """When the queen's own certificate does."""
        with explained(self._own[0], "read", RbeeError):
            return tls.life_of(self._own[0].read_text())[1]

    @property
    def fault(self) -> str | None:
        """Why nobody could join now, by the queen's clock; None if these certificates are valid."""
        if (fault := tls.fault_of(self.ca)) is not None:
            return f"the certificate of the queen's CA {fault}"
        own = self._own[0]
        with explained(own, "read", RbeeError):
            fault = tls.fault_of(own.read_text()) if own.exists() else None
        return None if fault is None else f"the queen's certificate {fault}"

    def context(self) -> ssl.SSLContext:
        """The one context of the queen's TLS; renew() puts another certificate into it."""
        if self._context is None:
            try:
                self._renew_own()
            except OSError as error:
                place = self._own[0]
                if not self._has_own(lambda certificate: tls.life_of(certificate)[1]):
                    raise BadConfig(
                        f"{place} cannot be written: {reason(error)}", hint=cure(error, place)
                    ) from error
                log.error("%s could not be renewed, and serves on until it expires: %s", place, reason(error))
            self._context = tls.server_context(self.ca, *self._own)
        return self._context

    def renew(self) -> bool:
        """Have the queen's certificate made anew where it is time; connections that are open stay.

        Raises OSError, and the one that there is stays as it is.
        """
        assert self._context is not None
        if not self._renew_own():
            return False
        self._context.load_cert_chain(*self._own)
        return True

    def sign(self, request: str, identity: Identity) -> str:
        """A hive's certificate in PEM, from its request; BadInput where that is none."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        try:
            asked = x509.load_pem_x509_csr(request.encode())
            key = asked.public_key()
        except Exception as error:  # what cryptography raises differs from version to version
            raise BadInput(f"request is no certificate request: {error}", field="request") from error
        _check_strength(key)
        try:
            is_genuine = asked.is_signature_valid
        except Exception as error:  # a hash that it does not know, for one
            told = f"request is signed in a way that is not taken: {error}"
            raise BadInput(told, field="request") from error
        if not is_genuine:
            raise BadInput("request is not signed with its own key", field="request")
        names = [
            x509.NameAttribute(NameOID.COMMON_NAME, identity.hive_id[:64]),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, identity.credential),
        ]
        return self._sign(key, x509.Name(names), ExtendedKeyUsageOID.CLIENT_AUTH, HIVE_LIFE)

    # Small print

    @property
    def _own(self) -> tuple[Path, Path]:
        return self._folder / "queen.crt", self._folder / "queen.key"

    def _renew_own(self) -> bool:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        certificate, key = self._own
        if self._has_own(_due):
            return False
        pem = tls.new_key()
        private = serialization.load_pem_private_key(pem.encode(), password=None)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, QUEEN_NAME)])
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        signed = self._sign(private.public_key(), name, usage, QUEEN_LIFE, name=QUEEN_NAME)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        # Before those that there are go: where there is no room, they stay.
        new_key = write_aside(key, pem.encode(), mode=0o600)
        new_certificate = write_aside(certificate, signed.encode(), mode=0o600)
        certificate.unlink(missing_ok=True)  # cut off here, both are made anew
        new_key.rename(key)
        new_certificate.rename(certificate)
        sync_folder(self._folder)
        return True

    def _has_own(self, until: Callable[[str], datetime]) -> bool:
        """Is there a certificate of this CA's with its key, and is what `until` says of it still to come?"""
        from cryptography import x509

        certificate, key = self._own
        try:
            return self._is_good(certificate.read_text(), key.read_bytes(), until)
        except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
            return False  # there is none yet, or none that can be read

    def _is_good(self, certificate: str, key: bytes, until: Callable[[str], datetime]) -> bool:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        found = x509.load_pem_x509_certificate(certificate.encode())
        if not _are_a_pair(found, serialization.load_pem_private_key(key, password=None)):
            return False
        signed_with = found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        return signed_with == self._key_identifier() and until(certificate) > datetime.now(UTC)

    def _key_identifier(self) -> Any:
        """Which key signed: the CAs of all queens have one name."""
        from cryptography import x509

        kind = x509.AuthorityKeyIdentifier
        try:
            found = x509.load_pem_x509_certificate(self.ca.encode()).extensions
            own = found.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return kind.from_issuer_public_key(self._ca_key.public_key())
        return kind.from_issuer_subject_key_identifier(own)

    def _sign(self, key: Any, subject: Any, usage: Any, life: timedelta, *, name: str | None = None) -> str:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ed448, ed25519

        ca = x509.load_pem_x509_certificate(self.ca.encode())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCKS)
            .not_valid_after(min(now + life, tls.life_of(self.ca)[1]))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        if name is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        # Ed25519 and Ed448 have a hash of their own.
        digest = (
            None
            if isinstance(self._ca_key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
            else hashes.SHA256()
        )
        signed = builder.sign(self._ca_key, digest)
        return signed.public_bytes(serialization.Encoding.PEM).decode()


def _check_strength(key: Any) -> None:
    """BadInput for a key that is too weak, too large to be worked with, or of a sort that TLS has not."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return
    if isinstance(key, rsa.RSAPublicKey):
        least, most = RSA_BITS
        if least <= key.key_size <= most:
            return
        told = f"an RSA key of {key.key_size} bits"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
            return
        told = f"a key on the curve {key.curve.name}"
    else:
        told = "a key of another sort"
    raise BadInput(
        f"request has {told}, which is refused", hint="Use EC with P-256, as rbee-hive does.", field="request"
    )


def credentials_folder() -> Path | None:
    """Where systemd has put this unit's credentials, if it has any."""
    found = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(found) if found else None


def _given(credentials: Path | None) -> tuple[str, Any] | None:
    if credentials is None or not (credentials / "rbee.ca.crt").exists():
        return None
    return _load(credentials / "rbee.ca.crt", credentials / "rbee.ca.key")


def _kept(folder: Path) -> tuple[str, Any] | None:
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if not certificate.exists():
        return None  # the key is written first: without a certificate it has never signed anything
    return _load(certificate, key)


def _load(certificate: Path, key: Path) -> tuple[str, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    # An administrator may bring them from anywhere: a mark of UTF-8 at the start is passed over.
    ca = decoded(certificate.read_bytes())
    private = serialization.load_pem_private_key(decoded(key.read_bytes()).encode(), password=None)
    if not _are_a_pair(x509.load_pem_x509_certificate(ca.encode()), private):
        raise ValueError(f"{key.name} is not the key of {certificate.name}")
    if tls.life_of(ca)[1] <= datetime.now(UTC):
        raise ValueError(f"{certificate.name} has expired")
    return ca, private


def _due(certificate: str) -> datetime:
    """When it is time for another certificate: at once for one that is not valid yet."""
    is_ahead = tls.life_of(certificate)[0] > datetime.now(UTC)
    return datetime.min.replace(tzinfo=UTC) if is_ahead else tls.renewal_of(certificate)


def _are_a_pair(certificate: Any, private: Any) -> bool:
    from cryptography.hazmat.primitives import serialization

    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    same: bool = certificate.public_key().public_bytes(*form) == private.public_key().public_bytes(*form)
    return same


def _made(folder: Path) -> tuple[str, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    pem = tls.new_key()
    key: Any = serialization.load_pem_private_key(pem.encode(), password=None)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rbee queen's CA")])
    now = datetime.now(UTC)
    usage = {
        "key_cert_sign": True, "crl_sign": True, "digital_signature": False, "content_commitment": False,
        "key_encipherment": False, "data_encipherment": False, "key_agreement": False,
        "encipher_only": False, "decipher_only": False,
    }  # fmt: skip
    ca = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate = ca.public_bytes(serialization.Encoding.PEM).decode()
    folder.mkdir(mode=0o700, exist_ok=True)
    write_whole(folder / "ca.key", pem.encode(), mode=0o600)
    write_whole(folder / "ca.crt", certificate.encode(), mode=0o600)
    return certificate, key
