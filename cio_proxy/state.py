"""The state folder: the key of every keyed hash, and the certificates. Readable by its owner only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from cio_proxy.model import Settings

KEY_BYTES = 32
CERTIFICATES = "certificates"
AUTHORITY = "mitmproxy-ca-cert.pem"
"""The certificate of the proxy's own authority, in the folder of certificates."""
BUNDLE = "ca-bundle.pem"
"""The machine's authorities, those of `extra_ca` and the proxy's own, in the same folder."""


def place(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Where the state folder is, or will be: the configured one, else `cio-proxy` in the user's."""
    home = environ.get("XDG_STATE_HOME") or str(Path("~/.local/state").expanduser())
    return Path(settings.state).expanduser() if settings.state else Path(home) / "cio-proxy"


def folder(settings: Settings, environ: Mapping[str, str]) -> Path:
    """The state folder, made on first use. Raises OSError."""
    path = place(settings, environ)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time, where a folder may be new: several that start at once make one key and one authority."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that knows no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def authority(folder: Path) -> Path:
    """The certificate of the authority that signs ours; it is there once the proxy has been started."""
    return folder / CERTIFICATES / AUTHORITY


def bundle(folder: Path) -> Path:
    """What an app trusts by: the machine's authorities, given ones and ours; there once the proxy has been started."""
    return folder / CERTIFICATES / BUNDLE


def admin_token(folder: Path) -> str:
    """A new token for the admin API, in a file that only its owner may read. Raises OSError."""
    path = folder / "admin.token"
    token = secrets.token_urlsafe(24)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as file:
        file.write(token)
    return token


def hash_key(folder: Path, file: str | None = None) -> bytes:
    """The key of the keyed hashes: from `file`, else made once. Raises OSError, and ValueError where is no key."""
    if file is not None:
        return given_key(Path(file).expanduser())
    path = folder / "hash.key"
    with alone(folder), contextlib.suppress(FileExistsError):
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "wb") as made:
            made.write(secrets.token_bytes(KEY_BYTES))
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} does not hold a {KEY_BYTES}-byte key: delete it to have a new one made")
    return key


EXPOSED = 0o037
"""Modes of a secret's file that somebody else may read, or its group change."""


def exposed(path: Path) -> str:
    """What is wrong with such a file, and what to do."""
    return f"may be read by others, or changed by its group: chmod 600 {path}"


def authorities(path: Path) -> bytes:
    """The certificate authorities of a file, in PEM form. Raises ValueError where there are none to be read."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        return path.read_bytes()
    except ssl.SSLError as error:
        raise ValueError(f"{path}: no certificate in PEM form in it") from error
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error


def secret(path: Path) -> bytes:
    """What is in a file that others may not read; its group may, as that of a pod may its secrets.

    Raises ValueError.
    """
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    if mode & EXPOSED:
        raise ValueError(f"{path} {exposed(path)}")
    return content


def given_key(path: Path) -> bytes:
    """A key of raw bytes or hexadecimal digits. Raises ValueError for a file without one, or that others may read."""
    content = secret(path)
    if len(content) == KEY_BYTES:
        return content
    with contextlib.suppress(ValueError):
        if len(key := bytes.fromhex(content.decode("ascii"))) == KEY_BYTES:
            return key
    raise ValueError(f"{path} holds neither {KEY_BYTES} bytes nor {2 * KEY_BYTES} hexadecimal digits")
