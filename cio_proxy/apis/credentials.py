"""Who is calling: the `Authorization` header, and the workspace it belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import replace

from cio_proxy.model import NO_CREDENTIALS, Api, Credentials, Seal, WorkspaceSettings


def read_credentials(header: str | None) -> Credentials:
    """Read an `Authorization` value. Both base64 alphabets are accepted: go sends the URL-safe one (reference 1.3)."""
    if header is None:
        return NO_CREDENTIALS
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    match scheme.lower():
        case "bearer":
            return Credentials("bearer", secret=value, fault="" if value else "no token")
        case "basic":
            return _read_basic(value)
        case _:
            return Credentials("other")


def _read_basic(value: str) -> Credentials:
    try:
        padded = value.rstrip("=").translate(str.maketrans("-_", "+/"))
        text = base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return Credentials("basic", fault="not base64 of text")
    user, colon, secret = text.partition(":")
    fault = "no colon" if not colon else "no site id" if not user else "no key" if not secret else ""
    return Credentials("basic", user, secret, fault)


def secrets_of(header: str | None) -> tuple[str, ...]:
    """The texts in an `Authorization` value that nobody else may read: itself, and what it says."""
    if not header:
        return ()
    read = read_credentials(header)
    return *header.split(), read.user, read.secret


class Keyring:
    """Names the workspace of each credential and tells configured keys by their SHA-256 digest."""

    def __init__(self, workspaces: Mapping[str, WorkspaceSettings], seal: Seal) -> None:
        self._seal = seal
        self._seen: dict[tuple[Api, bytes | None], tuple[Credentials, str]] = {}
        self._sites: dict[str, str] = {}
        self._keys: dict[str, tuple[Api, str]] = {}
        for name, workspace in workspaces.items():
            self._sites |= dict.fromkeys(workspace.site_ids, name)
            self._keys |= {_bare(digest): ("track_v1", name) for digest in workspace.track_keys}
            self._keys |= {_bare(digest): ("app", name) for digest in workspace.app_keys}
            self._keys |= {_bare(digest): ("pipelines", name) for digest in workspace.pipelines_keys}

    def identify(self, api: Api, header: bytes | None) -> tuple[Credentials, str]:
        """What an `Authorization` value says, with the API it is configured for; and the workspace it is of.

        A workspace is a configured name, else a keyed hash: of the Track site id (it survives key rotation), or of
        the credential.
        """
        sent = (api, header)
        if (known := self._seen.get(sent)) is None:
            if len(self._seen) >= 1_000:
                self._seen.clear()
            read = read_credentials(None if header is None else header.decode("latin-1"))
            if owner := self._owner(read):
                read = replace(read, belongs_to=owner[0])
            known = self._seen[sent] = read, self._name(api, read)
        return known

    def site(self, id: str) -> str:
        """The workspace of a Track site id."""
        return self._sites.get(id) or self._seal(f"site:{id}")

    def _name(self, api: Api, credentials: Credentials) -> str:
        if owner := self._owner(credentials):
            return owner[1]
        if credentials.scheme == "none":
            return ""
        if api in ("track_v1", "track_v2") and credentials.user:
            return self.site(credentials.user)
        return self._seal(f"key:{credentials.user}:{credentials.secret}")

    def _owner(self, credentials: Credentials) -> tuple[Api, str] | None:
        if not self._keys:
            return None
        for text in (credentials.secret, credentials.user):
            if text and (owner := self._keys.get(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())):
                return owner
        return None


def _bare(digest: str) -> str:
    return digest.removeprefix("sha256:").lower()
