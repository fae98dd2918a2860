"""Whose facts the traffic is that no configured workspace claims: the one Track site's, while there is one."""

import json
from dataclasses import replace
from typing import Any

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Auditor
from cio_proxy.facts.memory import MemoryStore
from cio_proxy.facts.workspace import EVERY, sites_in
from cio_proxy.model import Call, Exchange, Finding, Json, Settings, WorkspaceSettings
from cio_proxy.rules import RULES

NOW = 1.75e9
SEAL = sealed_with(b"k" * 32)
RULE = tuple(rule for rule in RULES if rule.info.id == "ignored-bounce")
ONE, TWO, THREE = (b"Basic b25lOmtleQ==", b"Basic dHdvOmtleQ==", b"Basic dGhyZWU6a2V5")
"""Of the sites one, two and three."""
APP = b"Bearer 20436c6351668b25a74a2c289a639d3f"


class Sink:
    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def ended(self, end: object) -> None:
        pass


class Stage:
    """A proxy with a clock that the test moves, and a store that it may share."""

    def __init__(self, settings: Settings | None = None, store: MemoryStore | None = None) -> None:
        self.settings = settings or Settings()
        self.now = NOW
        self.store = store or MemoryStore()
        self.sink = Sink()
        self.unable: list[str] = []
        self.auditor = Auditor(self.engine(self.settings), self.store, (self.sink,), lambda: self.now)

    def engine(self, settings: Settings) -> Engine:
        return Engine(settings, RULE, SEAL, unable=lambda rule, reason: self.unable.append(reason))

    async def send(
        self,
        target: str,
        body: Json = None,
        authorization: bytes | None = None,
        *,
        method: str = "POST",
        status: int = 200,
        **more: Any,
    ) -> Call:
        """Send and answer; the first call."""
        raw = b"" if body is None else json.dumps(body).encode()
        headers = () if authorization is None else ((b"Authorization", authorization),)
        fields: dict[str, Any] = {
            "id": f"{self.now}",
            "at": self.now,
            "host": "",
            "headers": headers,
            "body": raw,
            "method": method,
        }
        audit = await self.auditor.begin(Exchange(**{**fields, "target": target.encode()} | more))
        await self.auditor.answered(audit, status, b"")
        self.now += 1
        assert audit.opened is not None
        return audit.opened.calls[0]

    async def track(self, authorization: bytes | None = ONE, status: int = 200) -> Call:
        return await self.send(
            "/api/v1/customers/42", {"email": "a@example.com"}, authorization, method="PUT", status=status
        )

    async def app(self) -> Call:
        return await self.send("/v1/send/email", {"to": "a@example.com"}, APP)

    async def bounced(self) -> Call:
        told: Json = {"recipient": "a@example.com", "failure_message": "550 5.1.1 unknown", "identifiers": {"id": "42"}}
        report: Json = {"event_id": f"{self.now}", "object_type": "email", "metric": "bounced", "data": told}
        return await self.send("/hooks", report, listener="inbound", headers=((b"X-CIO-Signature", b"00"),))

    def found(self) -> list[tuple[str, str]]:
        return [(finding.pointer, finding.confidence) for finding in self.sink.findings]


async def test_track_is_its_own_and_all_else_is_the_one_sites_once_a_call_was_taken() -> None:
    stage = Stage()
    assert [(await stage.app()).joined, (await stage.bounced()).joined] == [None, None]
    site = await stage.track()
    assert site.joined == site.workspace != ""
    for call in (await stage.app(), await stage.bounced(), await stage.send("/v1/identify", {"userId": "1"}, ONE)):
        assert call.joined == site.workspace != call.workspace
    unsubscribe = await stage.send("/unsubscribe/d1")
    assert (unsubscribe.workspace, unsubscribe.joined) == ("", site.workspace)


@pytest.mark.parametrize("status", [401, 500])
async def test_a_site_that_customer_io_does_not_take_is_none(status: int) -> None:
    stage = Stage()
    await stage.track(status=status)
    assert (await stage.app()).joined is None
    await stage.track(TWO)
    await stage.track(status=status)
    assert (await stage.app()).joined is not None


async def test_between_two_sites_nobody_can_tell() -> None:
    stage = Stage()
    for authorization in (ONE, TWO, THREE):
        await stage.track(authorization)
    assert (await stage.app()).joined is None
    assert (await stage.track()).joined is not None
    await stage.bounced()
    await stage.app()
    assert set(stage.unable) == {
        "which workspace a webhook or a send is of is not known: name its keys in `workspaces`"
    }
    assert stage.found() == []


async def test_what_is_configured_counts_before_it_is_seen_and_names_what_was() -> None:
    shop = {"shop": WorkspaceSettings(site_ids=("one", "two"))}
    stage = Stage(Settings(workspaces=shop))
    assert (await stage.app()).joined == "shop"
    await stage.track(ONE)
    await stage.track(TWO)
    assert (await stage.app()).joined == "shop"
    await stage.track(THREE)
    assert (await stage.app()).joined is None
    keyed = {**shop, "other": WorkspaceSettings(track_keys=("sha256:" + "0" * 64,))}
    assert (await Stage(Settings(workspaces=keyed)).app()).joined is None
    no_sites = {"shop": WorkspaceSettings(), "other": WorkspaceSettings(site_ids=("one",))}
    assert (await Stage(Settings(workspaces=no_sites)).app()).joined == "other"


async def test_a_site_is_known_after_a_reload_also_under_the_name_that_it_gets() -> None:
    stage = Stage()
    site = await stage.track()
    stage.auditor.engine = stage.engine(replace(stage.settings, people="complete"))
    assert (await stage.app()).joined == site.workspace
    stage.auditor.engine = stage.engine(Settings(workspaces={"shop": WorkspaceSettings(site_ids=("one",))}))
    assert (await stage.app()).joined == "shop"
    await stage.track()
    assert (await stage.app()).joined == "shop"


async def test_a_site_that_an_exchange_under_way_shows_during_a_reload_is_known_to_the_new_engine() -> None:
    stage = Stage()
    old = stage.auditor.engine
    stage.auditor.engine = stage.engine(stage.settings)
    old.sites.add("site")
    assert (await stage.app()).joined == "site"


async def test_replicas_and_restarts_know_it_from_the_store() -> None:
    first = Stage()
    await first.auditor.beat(first.now)
    site = await first.track()
    second = Stage(store=first.store)
    await second.auditor.beat(second.now)
    assert (await second.app()).joined is None
    await first.auditor.beat(first.now + 10)
    await second.auditor.beat(second.now + 10)
    assert (await second.app()).joined == site.workspace
    await second.track(TWO)
    await second.auditor.beat(second.now + 20)
    await first.auditor.beat(first.now + 20)
    assert (await first.app()).joined is None
    record = (await first.store.get_many([EVERY], (), first.now)).records[EVERY]
    assert len(sites_in(record)) == 2


async def test_forgetting_everything_forgets_sites() -> None:
    stage = Stage()
    await stage.track()
    await stage.auditor.forget()
    assert (await stage.app()).joined is None


async def test_a_bounce_is_known_to_a_send_over_another_api() -> None:
    stage = Stage()
    await stage.track()
    await stage.bounced()
    stage.now += 3_600
    await stage.app()
    assert stage.found() == [("/to", "certain")]


@pytest.mark.parametrize("of_app", [True, False])
async def test_what_was_lost_of_the_site_may_have_been_a_reaction(of_app: bool) -> None:
    stage = Stage()
    site = await stage.track()
    await stage.bounced()
    stage.now += 3_600
    workspace = (await stage.app()).workspace if of_app else site.workspace
    before = stage.found()
    stage.auditor.missed(stage.now, workspace)
    await stage.app()
    assert stage.found() == before
    assert before == ([("/to", "certain")] if of_app else [])


async def test_a_read_that_fails_marks_both_workspaces(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    site = await stage.track()
    await stage.bounced()
    stage.now += 3_600

    async def fail(*_: object) -> Any:
        raise OSError

    with monkeypatch.context() as broken:
        broken.setattr(stage.store, "get_many", fail)
        await stage.app()
    await stage.app()
    assert stage.found() == []
    assert site.workspace in stage.auditor._missed
