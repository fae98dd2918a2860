"""Keys whose owner is configured, and answers of 401."""

import base64
from hashlib import sha256

import pytest

from cio_proxy.audit import Engine, sealed_with
from cio_proxy.drivers import Recorded, audit_recorded
from cio_proxy.model import Exchange, Finding, RuleSettings, Settings, WorkspaceSettings
from cio_proxy.rules import RULES

from .alone import findings, told

RULE = "wrong-api-key"
KEYS = {"track": "track-key-1", "app": "app-key-1", "pipelines": "pipelines-key-1"}
DIGESTS = {name: (sha256(key.encode()).hexdigest(),) for name, key in KEYS.items()}
SETTINGS = Settings(
    workspaces={
        "main": WorkspaceSettings(
            track_keys=DIGESTS["track"], app_keys=DIGESTS["app"], pipelines_keys=DIGESTS["pipelines"]
        )
    }
)
TRACK = [
    ("POST", "track.customer.io/api/v1/customers/42/events", {"name": "a"}),
    ("POST", "track.customer.io/api/v2/entity", {"type": "person", "action": "delete", "identifiers": {"id": "42"}}),
]
APP = ("GET", "api.customer.io/v1/campaigns", None)
PIPELINES = ("POST", "cdp.customer.io/v1/track", {"userId": "42", "event": "a"})
OWNERS = {"track": "a Track key", "app": "an App API key", "pipelines": "a Pipelines key"}


def basic(user: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}


@pytest.mark.parametrize("owner", KEYS)
@pytest.mark.parametrize(("method", "url", "body"), TRACK)
def test_a_configured_key_on_track(owner: str, method: str, url: str, body: object) -> None:
    found = findings(RULE, method, url, body, headers=basic("f82ad78f695bd32f9d99", KEYS[owner]), settings=SETTINGS)
    wanted = [] if owner == "track" else [(f"{OWNERS[owner]} on the Track API", "certain", True, False)]
    assert [(f.message, f.confidence, f.whole, f.refusable) for f in found] == wanted
    assert all(f.fix.startswith("Use HTTP Basic with the site id") for f in found)
    assert all(f.evidence == f"basic, {len(KEYS[owner])} characters" for f in found)


@pytest.mark.parametrize("owner", KEYS)
def test_a_configured_key_on_the_app_api(owner: str) -> None:
    found = findings(RULE, *APP, headers={"Authorization": f"Bearer {KEYS[owner]}"}, settings=SETTINGS)
    wanted = [] if owner == "app" else [(f"{OWNERS[owner]} on the App API", "certain")]
    assert [(f.message, f.confidence) for f in found] == wanted
    assert all(f.fix == "Use `Authorization: Bearer` with an App API key." for f in found)


@pytest.mark.parametrize("owner", KEYS)
def test_a_configured_key_on_pipelines(owner: str) -> None:
    found = findings(RULE, *PIPELINES, headers=basic(KEYS[owner], ""), settings=SETTINGS)
    wanted = [] if owner == "pipelines" else [(f"{OWNERS[owner]} on the Pipelines API", "certain")]
    assert [(f.message, f.confidence) for f in found] == wanted


def test_a_configured_key_may_have_any_shape() -> None:
    of_track, of_app = "a" * 32, "b" * 20
    main = WorkspaceSettings(
        track_keys=(sha256(of_track.encode()).hexdigest(),), app_keys=(sha256(of_app.encode()).hexdigest(),)
    )
    settings = Settings(workspaces={"main": main})
    for sent in TRACK:
        assert told(RULE, *sent, headers=basic("f82ad78f695bd32f9d99", of_track), settings=settings) == []
    assert told(RULE, *APP, headers={"Authorization": f"Bearer {of_app}"}, settings=settings) == []


ROUTES_WITHOUT = [
    ("POST", "track.customer.io/api/v1/metrics", {"delivery_id": "d", "metric": "opened"}),
    ("POST", "track.customer.io/api/v1/push/events", {"delivery_id": "d", "event": "opened"}),
    ("POST", "track.customer.io/unsubscribe/d", {"unsubscribe": True}),
]


@pytest.mark.parametrize(("method", "url", "body"), ROUTES_WITHOUT)
def test_routes_that_need_no_key_may_have_any(method: str, url: str, body: object) -> None:
    assert told(RULE, method, url, body, headers={"Authorization": "Bearer x"}) == []


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"Authorization": "Digest x"}, []),
        ({"Authorization": ""}, []),
        ({"Authorization": "Bearer x"}, ["certain"]),
        ({"Authorization": "Basic x"}, ["certain"]),
        (basic("f82ad78f695bd32f9d99", "a" * 32), ["likely"]),
        (basic("f82ad78f695bd32f9d99", "g" * 32), []),
        (basic("f82ad78f695bd32f9d99", "A" * 32), []),
        (basic("f82ad78f695bd32f9d99", "a" * 31), []),
        (basic("f82ad78f695bd32f9d99", "a" * 33), []),
    ],
)
def test_the_shape_of_a_key_on_track(headers: dict[str, str], wanted: list[str]) -> None:
    for method, url, body in TRACK:
        assert [sure for _, sure in told(RULE, method, url, body, headers=headers)] == wanted
        target = f"http://{url}".encode()
        assert [sure for _, sure in told(RULE, method, url, body, headers=headers, target=target)] == wanted


@pytest.mark.parametrize(
    ("token", "wanted"), [("a" * 20, ["likely"]), ("a" * 19, []), ("a" * 21, []), ("A" * 20, []), ("g" * 20, [])]
)
def test_the_shape_of_a_token_on_the_app_api(token: str, wanted: list[str]) -> None:
    assert [sure for _, sure in told(RULE, *APP, headers={"Authorization": f"Bearer {token}"})] == wanted


SITE, TRACK_KEY, APP_KEY = "f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27", "20436c6351668b25a74a2c289a639d3f"
ACCOUNTS = ["sa_live_0123456789ab", "sa_sandbox_0123456789ab"]
PREFIXED = [f"{kind}k_{region}_0123456789abcdef" for kind in "ps" for region in ("us", "eu")]


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        (basic(SITE, TRACK_KEY), ["a pair in the shape of a site id and a Track key on Pipelines"]),
        (
            {"Authorization": f"Bearer {APP_KEY}"},
            ["a token of 32 characters, the shape of an App API key, on Pipelines"],
        ),
        *((basic(key, ""), ["the token of a service account on Pipelines"]) for key in ACCOUNTS),
        *(({"Authorization": f"Bearer {key}"}, ["the token of a service account on Pipelines"]) for key in ACCOUNTS),
        *((basic(key, ""), []) for key in (SITE, APP_KEY, *PREFIXED)),
        *(({"Authorization": f"Bearer {key}"}, []) for key in (TRACK_KEY, *PREFIXED)),
        (basic(SITE, "x"), []),
        (basic("x", TRACK_KEY), []),
    ],
)
def test_the_shape_of_a_key_on_pipelines(headers: dict[str, str], wanted: list[str]) -> None:
    found = findings(RULE, *PIPELINES, headers=headers)
    assert [f.message for f in found] == wanted
    assert all((f.confidence, f.fix) == ("likely", "Use the write key of the Pipelines source.") for f in found)


@pytest.mark.parametrize("key", PREFIXED)
def test_a_pipelines_key_on_another_api(key: str) -> None:
    (finding,) = findings(RULE, *TRACK[0], headers=basic(SITE, key))
    assert (finding.message, finding.confidence) == (
        "a key with the prefix of a Pipelines key on the Track API",
        "likely",
    )
    (finding,) = findings(RULE, *APP, headers={"Authorization": f"Bearer {key}"})
    assert finding.message == "a token with the prefix of a Pipelines key on the App API"
    assert (finding.confidence, finding.fix) == ("likely", "Use `Authorization: Bearer` with an App API key.")


@pytest.mark.parametrize("key", ACCOUNTS)
def test_the_token_of_a_service_account(key: str) -> None:
    (finding,) = findings(RULE, *TRACK[0], headers=basic(SITE, key))
    assert (finding.message, finding.confidence) == ("the token of a service account on the Track API", "likely")
    assert findings(RULE, *APP, headers={"Authorization": f"Bearer {key}"}) == []


async def answered(status: int, host: str, target: str, authorization: str = "", method: str = "GET") -> list[Finding]:
    headers = ((b"Authorization", authorization.encode()),) if authorization else ()
    exchange = Exchange(
        id="1", at=1.75e9, method=method, target=target.encode(), host=host, headers=headers, body=b'{"name": "a"}'
    )
    settings = Settings(rules={RULE: RuleSettings(report="possible")})
    engine = Engine(settings, tuple(r for r in RULES if r.info.id == RULE), sealed_with(b"k" * 32))
    return await audit_recorded([(exchange, Recorded(1.75e9, status))], engine)


EVENTS = "/api/v1/customers/42/events"
GOOD = basic("f82ad78f695bd32f9d99", "a13c95a0bc44d9f01e27")["Authorization"]


@pytest.mark.parametrize(
    ("host", "target", "fix"),
    [
        ("track.customer.io", EVENTS, "Use HTTP Basic"),
        ("api.customer.io", "/v1/send/email", "Use `Authorization: Bearer`"),
    ],
)
async def test_an_answer_of_401_without_credentials(host: str, target: str, fix: str) -> None:
    (finding,) = await answered(401, host, target, method="POST")
    assert (finding.confidence, finding.whole, finding.evidence) == ("likely", True, "none, 0 characters")
    assert finding.message == "Customer.io answered 401 to a call without credentials"
    assert finding.fix.startswith(fix)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_probe_that_is_answered_401_is_no_call_without_credentials(method: str) -> None:
    assert await answered(401, "api.customer.io", "/v1/transactional", method=method) == []
    assert len(await answered(401, "api.customer.io", "/v1/transactional", method="POST")) == 1


async def test_an_answer_of_401_with_credentials_that_look_right() -> None:
    (finding,) = await answered(401, "track.customer.io", EVENTS, GOOD, "POST")
    assert (finding.confidence, finding.evidence) == ("likely", "basic, 20 characters")
    assert finding.fix.startswith("Compare the key")
    for status in (200, 400, 402, 403):
        assert await answered(status, "track.customer.io", EVENTS, GOOD, "POST") == []


async def test_answers_of_401_that_are_asked_for() -> None:
    (finding,) = await answered(401, "track.customer.io", "/api/v1/accounts/region", GOOD)
    assert finding.confidence == "possible"
    (finding,) = await answered(401, "api.customer.io", "/v1/campaigns", "Bearer eyJhbGciOiJIUzI1NiJ9.e30.c2ln")
    assert finding.confidence == "possible"
    for _, url, _ in ROUTES_WITHOUT:
        assert await answered(401, "track.customer.io", url.removeprefix("track.customer.io"), GOOD, "POST") == []


async def test_a_wrong_scheme_that_was_told_of_is_not_told_of_again() -> None:
    (finding,) = await answered(401, "track.customer.io", EVENTS, "Bearer x", "POST")
    assert finding.message.startswith("a Bearer token")
