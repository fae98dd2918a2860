"""Certificates: those of our own authority, one that the user gives, and whom we trust ourselves."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final

import certifi
from cryptography.x509 import load_pem_x509_certificates
from mitmproxy.addons import tlsconfig
from mitmproxy.certs import Cert, CertStore, CertStoreEntry, load_pem_private_key
from mitmproxy.options import CONF_BASENAME, KEY_SIZE
from mitmproxy.proxy.context import Context

from cio_proxy import state
from cio_proxy.model import Settings, TlsSettings
from cio_proxy.sources.mitm.listeners import listener_of

MACHINES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Where the authorities are that a machine trusts, on Debian and Alpine, Red Hat, and macOS and others."""


class Certificates(tlsconfig.TlsConfig):
    """What clients are shown: on the outbound listener `own`, where there is one, whatever host they ask for."""

    def __init__(self, own: CertStoreEntry | None) -> None:
        self._own = own

    def get_cert(self, conn_context: Context) -> CertStoreEntry:
        """The certificate for a client."""
        if self._own is not None and listener_of(conn_context.client) == "outbound":
            return self._own
        return super().get_cert(conn_context)


def authority(settings: Settings) -> Path:
    """The folder of the certificate authority, made on first use; nobody but its owner may read it. Raises OSError.

    A bundle for the app is made with it.
    """
    folder = state.folder(settings, os.environ) / state.CERTIFICATES
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    machine = next(filter(Path.exists, map(Path, MACHINES)), Path(certifi.where()))
    extra = b"" if settings.extra_ca is None else read(settings.extra_ca)
    with state.alone(folder):
        try:
            CertStore.from_store(folder, CONF_BASENAME, KEY_SIZE)
        except ValueError as error:
            raise OSError(f"{folder} holds a broken certificate authority: delete it to have a new one made") from error
        for file in folder.iterdir():
            file.chmod(0o600)
        write(folder / state.BUNDLE, b"\n".join([machine.read_bytes(), extra, (folder / state.AUTHORITY).read_bytes()]))
    return folder


def trusted(named: str, folder: Path) -> Path:
    """A file in `folder` with the usual certificate authorities and those of the file named. Raises OSError."""
    roots = Path(certifi.where()).read_bytes() + b"\n" + read(named)
    # Named by its content: another proxy that shares the folder may trust others.
    path = folder / f"upstream-roots-{hashlib.sha256(roots).hexdigest()[:16]}.pem"
    with state.alone(folder):
        if not path.exists():
            write(path, roots)
    return path


def read(named: str) -> bytes:
    """The certificate authorities in a file. Raises OSError."""
    try:
        return state.authorities(Path(named).expanduser())
    except ValueError as error:
        raise OSError(f"extra_ca: {error}") from error


def write(path: Path, content: bytes) -> None:
    """Put a whole file in its place, for its owner's eyes only. Raises OSError."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        unfinished.unlink()
    with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
    unfinished.replace(path)


def own(settings: TlsSettings) -> CertStoreEntry | None:
    """The certificate that the user gives, with its chain and key. Raises OSError with a line that names the option."""
    if settings.certificate is None:
        return None
    certificate = Path(settings.certificate).expanduser()
    key = certificate if settings.key is None else Path(settings.key).expanduser()
    option = "tls.certificate" if settings.key is None else "tls.key"
    chain, secret = contents("tls.certificate", certificate), contents(option, key)
    try:
        certificates = [Cert(each) for each in load_pem_x509_certificates(chain)]
    except ValueError as error:
        raise OSError(f"tls.certificate: {certificate}: no certificate in PEM form in it") from error
    if key.stat().st_mode & state.EXPOSED:
        raise OSError(f"{option}: {key} {state.exposed(key)}")
    try:
        private = load_pem_private_key(secret, password=None)
    except TypeError as error:
        raise OSError(f"{option}: {key} is locked with a password: give a key without one") from error
    except ValueError as error:
        raise OSError(f"{option}: {key}: no key in PEM form in it") from error
    if certificates[0].public_key() != private.public_key():
        raise OSError(f"{option}: {key} is not the key of the certificate in {certificate}")
    return CertStoreEntry(certificates[0], private, certificate, certificates)


def contents(option: str, file: Path) -> bytes:
    """What is in a file. Raises OSError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise OSError(f"{option}: {file}: {said(error)}") from error


def said(error: OSError) -> str:
    """Why a file cannot be read."""
    return (error.strerror or "cannot be read").lower()
