"""The queen's CA: made at first use, kept, renewed, an administrator's own; and what TLS makes of it."""

from __future__ import annotations

import base64
import errno
import os
import re
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID

import rbee.queen.authority
from rbee import tls
from rbee.errors import BadConfig, BadInput
from rbee.queen.authority import HIVE_LIFE, QUEEN_LIFE, Authority, Identity

GPU1 = Identity("gpu1", "c" * 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tls"


def own_ca(folder: Path, key: Any = None, *, identifier: bytes | None = None, days: int = 30) -> Path:
    """An administrator's CA, as systemd hands it over as credentials."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example CA")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    if identifier is not None:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(identifier), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    folder.mkdir()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "rbee.ca.crt").write_bytes(builder.sign(key, digest).public_bytes(pem))
    (folder / "rbee.ca.key").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    return folder


def test_certificates_of_the_future_are_named_and_the_queen_s_own_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Authority.open(folder).context()
    right = Authority.open(folder)
    assert right.fault is None
    ahead = -timedelta(days=2)
    with monkeypatch.context() as while_it_is_ahead:
        while_it_is_ahead.setattr(rbee.queen.authority, "CLOCKS", ahead)
        (folder / "queen.crt").unlink()
        Authority.open(folder).context()
    assert (right.fault or "").startswith("the queen's certificate is not valid before ")
    right.context()
    assert right.fault is None

    with monkeypatch.context() as while_it_is_ahead:
        while_it_is_ahead.setattr(rbee.queen.authority, "CLOCKS", ahead)
        wrong = Authority.open(folder.parent / "another")
    assert (wrong.fault or "").startswith("the certificate of the queen's CA is not valid before ")


def credential(authority: Authority, path: Path) -> Path:
    key = tls.new_key()
    path.write_text(key + authority.sign(tls.request_for(key), GPU1))
    return path


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """In memory; the server's end, once both have finished. Raises what either of them does."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(down, up, server_hostname=tls.QUEEN_NAME)
    far = server.wrap_bio(up, down, server_side=True)
    todo = [near, far]
    for _ in range(10):
        for end in list(todo):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            todo.remove(end)
        if not todo:
            return far
    raise AssertionError("the handshake has no end")


# The CA


def test_a_ca_is_made_once_and_kept_for_its_owner_alone(folder: Path) -> None:
    first = Authority.open(folder)
    first.context()
    again = Authority.open(folder)

    assert first.fingerprint == again.fingerprint == tls.fingerprint(first.ca)
    assert sorted(os.listdir(folder)) == ["ca.crt", "ca.key", "queen.crt", "queen.key"]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert (modes, stat.S_IMODE(folder.stat().st_mode)) == ({0o600}, 0o700)


def test_a_ca_whose_making_was_cut_off_is_made_anew(folder: Path) -> None:
    folder.mkdir()
    # The key is written first, and without a certificate it has signed nothing.
    (folder / "ca.key").write_text("half a key")

    assert Authority.open(folder).fingerprint == Authority.open(folder).fingerprint


@pytest.mark.parametrize(
    "what", ["ca.key gone", "ca.key damaged", "ca.key another's", "ca.crt damaged", "expired"]
)
def test_keys_that_cannot_be_used_are_refused_with_the_way_back_and_left_as_they_are(
    folder: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "expired":
        monkeypatch.setattr(rbee.queen.authority, "CA_LIFE", timedelta(seconds=-1))
    Authority.open(folder)
    if what == "ca.key gone":
        (folder / "ca.key").unlink()
    elif what == "ca.key another's":
        Authority.open(tmp_path / "other")
        (folder / "ca.key").write_bytes((tmp_path / "other/ca.key").read_bytes())
    elif what != "expired":
        (folder / what.split()[0]).write_text("no key")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    with pytest.raises(BadConfig) as caught:
        Authority.open(folder)

    assert "KEYS" in (caught.value.hint or "")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("kind", ["EC", "Ed25519", "an identifier of its own"])
def test_a_ca_of_the_administrator_s_own_signs_for_all_and_leaves_no_key_here(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    key = ed25519.Ed25519PrivateKey.generate() if kind == "Ed25519" else None
    given = own_ca(tmp_path / "given", key, identifier=b"mine" if kind.startswith("an") else None)
    authority = Authority.open(folder, credentials=given)

    client = tls.client_context(authority.ca, credential(authority, tmp_path / "hive"), None)
    shown = shake_hands(authority.context(), client).getpeercert()

    assert shown is not None
    assert shown["issuer"] == ((("commonName", "Example CA"),),)
    assert sorted(os.listdir(folder)) == ["queen.crt", "queen.key"]


def test_a_ca_that_an_editor_put_a_byte_order_mark_before_is_read(folder: Path, tmp_path: Path) -> None:
    given = own_ca(tmp_path / "given")
    plain = Authority.open(folder, credentials=given).fingerprint
    for path in given.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))

    assert Authority.open(folder, credentials=given).fingerprint == plain


def test_a_ca_of_the_administrator_s_own_that_has_expired_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="has expired"):
        Authority.open(folder, credentials=own_ca(tmp_path / "given", days=-1))


# Her own certificate


def of_queen(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "queen.crt").read_bytes(), (folder / "queen.key").read_bytes()


def test_her_certificate_is_made_anew_after_two_thirds_of_its_life(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.open(folder)
    context = authority.context()
    first = of_queen(folder)
    assert not authority.renew()
    assert of_queen(folder) == first

    later = pass_time(monkeypatch, QUEEN_LIFE * 2 / 3 + timedelta(hours=1))
    assert authority.renew()
    second = of_queen(folder)
    assert second[0] != first[0]
    assert tls.life_of(second[0].decode())[1] - later == pytest.approx(QUEEN_LIFE, abs=timedelta(minutes=1))
    # The same context has it, for who comes from now on; that CA is still hers.
    assert authority.context() is context
    assert authority.expires == tls.life_of(second[0].decode())[1]


def pass_time(monkeypatch: pytest.MonkeyPatch, time: timedelta) -> datetime:
    later = datetime.now(UTC) + time

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return later

    monkeypatch.setattr(rbee.queen.authority, "datetime", Later)
    return later


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def test_a_certificate_that_a_full_disk_keeps_from_renewal_serves_on_until_it_expires(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority.open(folder)
    authority.context()
    first = of_queen(folder)
    fill_disk(monkeypatch)
    pass_time(monkeypatch, QUEEN_LIFE * 3 / 4)

    with pytest.raises(OSError, match="No space left"):
        authority.renew()
    Authority.open(folder).context()

    assert of_queen(folder) == first
    assert "queen.crt could not be renewed" in caplog.text
    pass_time(monkeypatch, QUEEN_LIFE)
    with pytest.raises(BadConfig) as caught:
        Authority.open(folder).context()
    assert caught.value.message == f"{folder}/queen.crt cannot be written: No space left on device"
    assert caught.value.hint == f"df -h {folder}"


def test_keys_that_a_full_disk_keeps_from_being_made_cost_nobody_a_new_join(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch)

    with pytest.raises(BadConfig) as caught:
        Authority.open(folder)

    assert "No space left on device" in caught.value.message
    assert (caught.value.hint or "").startswith("df -h")


@pytest.mark.parametrize(
    "what", ["no certificate", "no key", "a damaged key", "another's key", "another CA's"]
)
def test_her_certificate_is_made_anew_where_it_cannot_be_used(
    folder: Path, tmp_path: Path, what: str
) -> None:
    Authority.open(folder).context()
    if what == "no certificate":
        (folder / "queen.crt").unlink()
    elif what == "no key":
        (folder / "queen.key").unlink()
    elif what == "a damaged key":
        (folder / "queen.key").write_text("no key")
    else:
        Authority.open(tmp_path / "other").context()
        names = ("queen.key",) if what == "another's key" else ("queen.crt", "queen.key")
        for name in names:
            (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    authority = Authority.open(folder)

    shake_hands(authority.context(), tls.client_context(authority.ca, None, None))


# Hives


def test_a_hive_s_certificate_says_which_hive_and_which_credential(folder: Path) -> None:
    authority = Authority.open(folder)
    found = x509.load_pem_x509_certificate(authority.sign(tls.request_for(tls.new_key()), GPU1).encode())

    names = {name.oid: name.value for name in found.subject}
    assert names == {NameOID.COMMON_NAME: "gpu1", NameOID.SERIAL_NUMBER: "c" * 16}
    begins, ends = tls.life_of(found.public_bytes(serialization.Encoding.PEM).decode())
    assert ends - begins == pytest.approx(HIVE_LIFE, abs=timedelta(hours=2))


def test_no_certificate_outlives_the_ca(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.queen.authority, "CA_LIFE", timedelta(days=3))
    authority = Authority.open(folder)

    assert (
        tls.life_of(authority.sign(tls.request_for(tls.new_key()), GPU1))[1] == tls.life_of(authority.ca)[1]
    )


def test_what_is_no_request_is_refused(folder: Path) -> None:
    authority = Authority.open(folder)
    request = tls.request_for(tls.new_key())
    block = re.sub(r"-----.*?-----|\n", "", request)
    forged = x509.load_pem_x509_csr(request.encode()).public_bytes(serialization.Encoding.DER)
    forged = forged[:-1] + bytes((forged[-1] ^ 1,))
    body = base64.b64encode(forged).decode()
    unsigned = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"

    for text in ("", "x", block, authority.ca, unsigned):
        with pytest.raises(BadInput, match="^request is") as caught:
            authority.sign(text, GPU1)
        assert caught.value.field == "request"


def request_with(key: Any) -> str:
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    return request.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rsa.generate_private_key(65537, 1024), "an RSA key of 1024 bits"),
        (lambda: ec.generate_private_key(ec.SECP192R1()), "a key on the curve secp192r1"),
        (lambda: ec.generate_private_key(ec.SECP224R1()), "a key on the curve secp224r1"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "a key on the curve secp256k1"),
        (lambda: dsa.generate_private_key(2048), "a key of another type"),
    ],
    ids=["RSA 1024", "P-192", "P-224", "secp256k1", "DSA"],
)
def test_a_weak_key_is_refused_with_what_it_is(folder: Path, make: Any, words: str) -> None:
    with pytest.raises(BadInput, match=f"request has {words}, which is refused") as caught:
        Authority.open(folder).sign(request_with(make()), GPU1)
    assert caught.value.field == "request"
    assert "P-256" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
        ed448.Ed448PrivateKey.generate,
    ],
    ids=["RSA 2048", "P-384", "Ed25519", "Ed448"],
)
def test_a_strong_key_is_signed(folder: Path, make: Any) -> None:
    assert "BEGIN CERTIFICATE" in Authority.open(folder).sign(request_with(make()), GPU1)


def test_a_hive_is_known_by_its_certificate_and_a_stranger_is_let_in_without_one(
    folder: Path, tmp_path: Path
) -> None:
    authority = Authority.open(folder)
    member = tls.client_context(authority.ca, credential(authority, tmp_path / "hive"), None)
    far = shake_hands(authority.context(), member)

    shown = far.getpeercert()
    assert shown is not None
    assert (("serialNumber", "c" * 16),) in shown["subject"]
    assert far.version() == "TLSv1.3"
    assert not shake_hands(authority.context(), tls.client_context(authority.ca, None, None)).getpeercert()


def test_nobody_else_s_certificate_is_let_in(folder: Path, tmp_path: Path) -> None:
    authority, other = Authority.open(folder), Authority.open(tmp_path / "other")
    foreign = tls.client_context(authority.ca, credential(other, tmp_path / "hive"), None)

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(authority.context(), foreign)


def test_no_other_queen_is_believed(folder: Path, tmp_path: Path) -> None:
    authority, other = Authority.open(folder), Authority.open(tmp_path / "other")

    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(other.context(), tls.client_context(authority.ca, None, None))
    # Nor a hive of hers that plays the queen.
    path = credential(authority, tmp_path / "hive")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(
            tls.server_context(authority.ca, path, path), tls.client_context(authority.ca, None, None)
        )


def test_an_older_tls_is_refused(folder: Path) -> None:
    authority = Authority.open(folder)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL|VERSION"):
        shake_hands(authority.context(), old)
