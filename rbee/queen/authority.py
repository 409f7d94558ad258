"""The queen's CA: made at first use, it signs the certificates of the queen and of its hives.

The files are in `tls` of the state directory, mode 0600: ca.crt and ca.key, queen.crt and queen.key. An
administrator may provide a CA as the systemd credentials rbee.ca.crt and rbee.ca.key; then no CA key is
kept here.
"""

from __future__ import annotations

import errno
import logging
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from rbee import tls
from rbee.errors import BadConfig, BadInput, RbeeError
from rbee.files import cure, explained, reason, sync_folder, write_aside, write_whole
from rbee.text import decoded
from rbee.tls import QUEEN_NAME

log = logging.getLogger("rbee")

CA_LIFE = timedelta(days=10 * 365)

QUEEN_LIFE = timedelta(days=90)
"""Validity of the queen's certificate; like a hive's it is renewed after two thirds of that."""

HIVE_LIFE = timedelta(days=365)
"""Validity of a hive's certificate: long, as the catalog decides which hives are accepted, and a machine may
be off for four months."""

CLOCKS = timedelta(hours=1)
"""How far a hive's clock may be behind the queen's: certificates are valid from this long ago."""

RSA_BITS = 2048, 8192
"""The least and the most bits of a hive's RSA key."""

WAY_BACK = "man queen-rbee.service, KEYS: the hives have to join again"


class Identity(NamedTuple):
    """The subject of a hive's certificate; a renewed certificate has the same credential."""

    hive_id: str
    credential: str


class Authority:
    """A CA and the queen's certificate. Methods take milliseconds and may read or write files."""

    def __init__(self, folder: Path, ca: str, ca_key: Any) -> None:
        self.ca = ca
        self.fingerprint = tls.fingerprint(ca)
        self._folder = folder
        self._ca_key = ca_key
        self._context: ssl.SSLContext | None = None

    @classmethod
    def open(cls, folder: Path, *, credentials: Path | None = None) -> Authority:
        """Load the CA, or make one if there is none. BadConfig if it is unusable; its files stay."""
        try:
            return cls(folder, *_given(credentials) or _kept(folder) or _made(folder))
        except OSError as error:
            place = Path(error.filename or folder)
            # Only if a key is lost do the hives have to join again; anything else can be repaired.
            hint = WAY_BACK if error.errno == errno.ENOENT else cure(error, place)
            raise BadConfig(f"the keys in {place} cannot be used: {reason(error)}", hint=hint) from error
        except (ValueError, TypeError, BadInput) as error:
            place = credentials if credentials and (credentials / "rbee.ca.crt").exists() else folder
            raise BadConfig(f"the keys in {place} are not those of a CA: {error}", hint=WAY_BACK) from error

    @property
    def expires(self) -> datetime:
        """When the queen's own certificate expires. Raises RbeeError if it cannot be read."""
        with explained(self._own[0], "read", RbeeError):
            return tls.life_of(self._own[0].read_text())[1]

    @property
    def fault(self) -> str | None:
        """Why no machine can join now, by the queen's clock; None if both certificates are valid.

        Raises RbeeError if the queen's cannot be read.
        """
        if (fault := tls.fault_of(self.ca)) is not None:
            return f"the certificate of the queen's CA {fault}"
        own = self._own[0]
        with explained(own, "read", RbeeError):
            fault = tls.fault_of(own.read_text()) if own.exists() else None
        return None if fault is None else f"the queen's certificate {fault}"

    def context(self) -> ssl.SSLContext:
        """Return the queen's one TLS context; renew() loads a new certificate into it. Raises BadConfig."""
        if self._context is None:
            try:
                self._renew_own()
            except OSError as error:
                place = self._own[0]
                if not self._has_own(lambda certificate: tls.life_of(certificate)[1]):
                    raise BadConfig(
                        f"{place} cannot be written: {reason(error)}", hint=cure(error, place)
                    ) from error
                log.error("%s could not be renewed, and is used until it expires: %s", place, reason(error))
            self._context = tls.server_context(self.ca, *self._own)
        return self._context

    def renew(self) -> bool:
        """Renew the queen's certificate if that is due, and return whether it was; open connections stay.

        Raises OSError; the present certificate then stays in use.
        """
        assert self._context is not None
        if not self._renew_own():
            return False
        self._context.load_cert_chain(*self._own)
        return True

    def sign(self, request: str, identity: Identity) -> str:
        """Sign a hive's PKCS #10 request and return the certificate, both in PEM. Raises BadInput."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        try:
            asked = x509.load_pem_x509_csr(request.encode())
            key = asked.public_key()
        except Exception as error:  # what cryptography raises differs from version to version
            raise BadInput(f"request is not a certificate request: {error}", field="request") from error
        _check_strength(key)
        try:
            is_genuine = asked.is_signature_valid
        except Exception as error:  # for example an unknown hash
            message = f"request has a signature that is not supported: {error}"
            raise BadInput(message, field="request") from error
        if not is_genuine:
            raise BadInput("request is not signed with its own key", field="request")
        names = [
            x509.NameAttribute(NameOID.COMMON_NAME, identity.hive_id[:64]),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, identity.credential),
        ]
        return self._sign(key, x509.Name(names), ExtendedKeyUsageOID.CLIENT_AUTH, HIVE_LIFE)

    # The queen's own certificate, and signing

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
        # Written before the old ones are removed: if there is no room, those stay.
        new_key = write_aside(key, pem.encode(), mode=0o600)
        new_certificate = write_aside(certificate, signed.encode(), mode=0o600)
        certificate.unlink(missing_ok=True)  # if interrupted here, both are made again
        new_key.rename(key)
        new_certificate.rename(certificate)
        sync_folder(self._folder)
        return True

    def _has_own(self, until: Callable[[str], datetime]) -> bool:
        """Is there a certificate by this CA with its key, and is the time from `until` in the future?"""
        from cryptography import x509

        certificate, key = self._own
        try:
            return self._is_good(certificate.read_text(), key.read_bytes(), until)
        except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
            return False  # missing or unreadable

    def _is_good(self, certificate: str, key: bytes, until: Callable[[str], datetime]) -> bool:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        loaded = x509.load_pem_x509_certificate(certificate.encode())
        if not _are_a_pair(loaded, serialization.load_pem_private_key(key, password=None)):
            return False
        signed_with = loaded.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        return signed_with == self._key_identifier() and until(certificate) > datetime.now(UTC)

    def _key_identifier(self) -> Any:
        """Identify the signing key: the CAs of all queens have the same name."""
        from cryptography import x509

        kind = x509.AuthorityKeyIdentifier
        try:
            extensions = x509.load_pem_x509_certificate(self.ca.encode()).extensions
            own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
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
        # Ed25519 and Ed448 include their hash.
        digest = (
            None
            if isinstance(self._ca_key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
            else hashes.SHA256()
        )
        signed = builder.sign(self._ca_key, digest)
        return signed.public_bytes(serialization.Encoding.PEM).decode()


def _check_strength(key: Any) -> None:
    """Raise BadInput for a key that is too weak, too large, or of a type that TLS does not have."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return
    if isinstance(key, rsa.RSAPublicKey):
        least, most = RSA_BITS
        if least <= key.key_size <= most:
            return
        description = f"an RSA key of {key.key_size} bits"
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
            return
        description = f"a key on the curve {key.curve.name}"
    else:
        description = "a key of another type"
    message = f"request has {description}, which is refused"
    raise BadInput(message, hint="Use EC with P-256, as rbee-hive does.", field="request")


def credentials_folder() -> Path | None:
    """Return the folder in which systemd has put this unit's credentials, or None."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def _given(credentials: Path | None) -> tuple[str, Any] | None:
    if credentials is None or not (credentials / "rbee.ca.crt").exists():
        return None
    return _load(credentials / "rbee.ca.crt", credentials / "rbee.ca.key")


def _kept(folder: Path) -> tuple[str, Any] | None:
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if not certificate.exists():
        return None  # the key is written first: without ca.crt it has never signed anything
    return _load(certificate, key)


def _load(certificate: Path, key: Path) -> tuple[str, Any]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    # Files from an administrator may begin with the byte order mark of UTF-8.
    ca = decoded(certificate.read_bytes())
    private = serialization.load_pem_private_key(decoded(key.read_bytes()).encode(), password=None)
    if not _are_a_pair(x509.load_pem_x509_certificate(ca.encode()), private):
        raise ValueError(f"{key.name} is not the key of {certificate.name}")
    if tls.life_of(ca)[1] <= datetime.now(UTC):
        raise ValueError(f"{certificate.name} has expired")
    return ca, private


def _due(certificate: str) -> datetime:
    """Return when a certificate is due for renewal: at once if it is not valid yet."""
    is_not_valid_yet = tls.life_of(certificate)[0] > datetime.now(UTC)
    return datetime.min.replace(tzinfo=UTC) if is_not_valid_yet else tls.renewal_of(certificate)


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
