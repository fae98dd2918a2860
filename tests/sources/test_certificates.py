"""What is shown to clients over TLS, whom the app is told to trust, and who may read the files."""

import asyncio
import os
import ssl
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import DNSName
from mitmproxy.certs import CertStore
from mitmproxy.options import CONF_BASENAME

from cio_proxy.model import Address, Settings, TlsSettings
from cio_proxy.sources.mitm.certificates import authority
from cio_proxy.state import alone

from .conftest import OK, OpenDoor, read_message, request, upstream
from .test_explicit import EXPLICIT, exchanged, ours, tunnel

READ = request("GET", "/api/v1/accounts/region")


def given(folder: Path, name: str = "proxy.example.com", password: bytes | None = None) -> tuple[Path, Path, Path]:
    """The files of a certificate, of its key, and of the authority that issued it."""
    folder.mkdir(exist_ok=True)
    entry = (store := CertStore.from_store(folder, "company", 2048)).get_cert(name, [DNSName(name)])
    lock = NoEncryption() if password is None else BestAvailableEncryption(password)
    certificate, key = folder / "tls.crt", folder / "tls.key"
    certificate.write_bytes(entry.cert.to_pem())
    key.write_bytes(entry.privatekey.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    key.chmod(0o600)
    assert store is not None
    return certificate, key, folder / "company-ca-cert.pem"


async def shown(address: Address, ca: Path, name: str | None) -> bytes:
    """What is answered over TLS to a client that trusts one authority; without a name it asks for none."""
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = name is not None
    reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=name or "")
    try:
        writer.write(READ)
        return await asyncio.wait_for(read_message(reader), 10)
    finally:
        writer.close()


@pytest.mark.parametrize("one_file", [False, True], ids=["two files", "one file"])
async def test_the_outbound_listener_shows_the_given_certificate_to_whatever_name(
    one_file: bool, open_door: OpenDoor, tmp_path: Path
) -> None:
    certificate, key, ca = given(tmp_path / "company")
    settings = Settings(tls=TlsSettings(certificate=str(certificate), key=str(key)))
    if one_file:
        both = tmp_path / "tls.pem"
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        both.chmod(0o600)
        settings = Settings(tls=TlsSettings(certificate=str(both)))
    async with upstream() as raw, open_door(raw.url, settings) as door:
        assert await shown(door.address, ca, "proxy.example.com") == OK
        assert await shown(door.address, ca, None) == OK
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await shown(door.address, ca, "track.customer.io")
        assert await door.send(READ) == OK  # and plain HTTP goes on
    assert [end.exchange.tls for end in door.sink.ends] == [True, True, False]


async def test_the_explicit_listener_goes_on_showing_certificates_of_our_own(
    open_door: OpenDoor, tmp_path: Path
) -> None:
    certificate, key, _ = given(tmp_path / "company")
    settings = replace(EXPLICIT, tls=TlsSettings(certificate=str(certificate), key=str(key)))
    async with (
        upstream() as raw,
        open_door(raw.url, settings) as door,
        tunnel(door, "track.customer.io:443", ours(door)) as streams,
    ):
        assert await exchanged(streams, READ) == OK


async def test_what_cannot_be_shown_stops_the_start_with_one_line(open_door: OpenDoor, tmp_path: Path) -> None:
    certificate, key, _ = given(tmp_path / "company")
    _, other, _ = given(tmp_path / "other")
    _, locked, _ = given(tmp_path / "locked", password=b"secret")
    bare = tmp_path / "open.key"
    bare.write_bytes(key.read_bytes())
    bare.chmod(0o644)
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    broken.chmod(0o600)
    nowhere = tmp_path / "nowhere.pem"
    for one, two, told in (
        (nowhere, key, f"tls.certificate: {nowhere}: no such file or directory"),
        (broken, key, f"tls.certificate: {broken}: no certificate in PEM form in it"),
        (certificate, nowhere, f"tls.key: {nowhere}: no such file or directory"),
        (certificate, broken, f"tls.key: {broken}: no key in PEM form in it"),
        (certificate, other, f"tls.key: {other} is not the key of the certificate in {certificate}"),
        (certificate, locked, f"tls.key: {locked} is locked with a password: give a key without one"),
        (
            certificate,
            bare,
            f"tls.key: {bare} may be read by others, or changed by its group: chmod 600 {bare}",
        ),
    ):
        with pytest.raises(OSError, match="tls") as caught:
            async with open_door("http://127.0.0.1:9", Settings(tls=TlsSettings(certificate=str(one), key=str(two)))):
                pass
        assert str(caught.value) == told


async def test_nobody_but_its_owner_may_read_what_is_written(open_door: OpenDoor, tmp_path: Path) -> None:
    _, _, ca = given(tmp_path / "company")
    before = os.umask(0)
    try:
        async with open_door("http://127.0.0.1:9", Settings(extra_ca=str(ca))) as door:
            folder = ours(door).parent
            modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {"mitmproxy-ca.pem", "mitmproxy-ca-cert.pem", "ca-bundle.pem"} < modes.keys()
    assert any(name.startswith("upstream-roots-") for name in modes)
    assert set(modes.values()) == {0o600}


def test_who_starts_while_another_makes_the_authority_waits_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    CertStore.from_store(folder, CONF_BASENAME, 2048)
    key = folder / "mitmproxy-ca.pem"
    whole = key.read_bytes()
    with ThreadPoolExecutor(1) as other:
        with alone(folder):
            key.write_bytes(whole[:100])
            coming = other.submit(authority, Settings(state=str(tmp_path)))
            wait([coming], timeout=0.3)
            key.write_bytes(whole)
        assert coming.result(10) == folder


async def test_the_bundle_for_the_app_holds_the_usual_authorities_ours_and_the_given_ones(
    open_door: OpenDoor, tmp_path: Path
) -> None:
    _, _, ca = given(tmp_path / "company")
    async with upstream() as raw, open_door(raw.url, replace(EXPLICIT, extra_ca=str(ca))) as door:
        bundle = ours(door).with_name("ca-bundle.pem")
        content = bundle.read_bytes()
        async with tunnel(door, "track.customer.io:443", bundle) as streams:
            assert await exchanged(streams, READ) == OK
    assert content.count(b"BEGIN CERTIFICATE") > 50
    assert ca.read_bytes() in content
