"""Who is calling: the `Authorization` header, and the workspace it belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import replace

from cio_proxy.model import MOST_SITES, NO_CREDENTIALS, Api, Credentials, Seal, WebhookSettings, WorkspaceSettings


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


class Sites(set[str]):
    """The workspaces of the Track sites that Customer.io took a call for. Two are as good as many."""

    def add(self, workspace: str) -> None:
        """One more."""
        if workspace and len(self) < MOST_SITES:
            super().add(workspace)


class Keyring:
    """Names the workspace of each credential and tells configured keys by their SHA-256 digest."""

    def __init__(
        self, workspaces: Mapping[str, WorkspaceSettings], seal: Seal, webhooks: WebhookSettings | None = None
    ) -> None:
        self._seal = seal
        self.sites = Sites()
        """Shared by all keyrings that follow one another while the proxy runs."""
        self._renamed = {seal(f"site:{id}"): name for name, each in workspaces.items() for id in each.site_ids}
        self._mapped = frozenset(workspaces)
        self._configured = frozenset(name for name, each in workspaces.items() if each.site_ids or each.track_keys)
        self.signing: Mapping[str, str] = _signing(workspaces, seal, webhooks or WebhookSettings())
        """The workspaces by the keys that their webhooks are signed with."""
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

    def joined(self, workspace: str) -> str | None:
        """The workspace of facts that join APIs, for traffic that is not Track's own: its own where it is configured.

        Else that of the Track site, while exactly one is known (design §3, Workspace).
        """
        if workspace in self._mapped:
            return workspace
        sites = self._configured | {self._renamed.get(site, site) for site in self.sites}
        return next(iter(sites)) if len(sites) == 1 else None

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


def _signing(workspaces: Mapping[str, WorkspaceSettings], seal: Seal, webhooks: WebhookSettings) -> dict[str, str]:
    """The workspaces by signing key. Keys of none are taken to be of one that has no name but the first of them."""
    given = webhooks.signing_key_file.keys if webhooks.signing_key_file else ()
    given = (*((webhooks.signing_key,) if webhooks.signing_key else ()), *given)
    signing = dict.fromkeys(given, seal(f"key::{given[0]}") if given else "")
    for name, workspace in workspaces.items():
        if workspace.signing_key_file:
            signing |= dict.fromkeys(workspace.signing_key_file.keys, name)
    return signing


def _bare(digest: str) -> str:
    return digest.removeprefix("sha256:").lower()
