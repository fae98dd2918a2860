"""A clean integration: every method of the cdp `Client`, sent at once and in batches, plain and gzipped.

python cdp_clean.py http://127.0.0.1:8080

The methods are read from the class, so one that a new version adds fails here until it has a step.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import session
from customerio.analytics.client import Client
from session import report, step

proxy = sys.argv[1]
WEEK_AGO = datetime.now(UTC) - timedelta(days=7)


def traits(name: str) -> dict[str, object]:
    return {"email": f"{name}@example.com", "createdAt": WEEK_AGO, "plan": "pro"}


def steps(cdp: Client) -> dict[str, list[Callable[[], object]]]:
    """In the order of a session."""
    return {
        "identify": [
            lambda: cdp.identify("cust-ada", traits("ada"), anonymous_id="anon-ada"),
            lambda: cdp.identify("cust-ivy", traits("ivy"), timestamp=datetime.now(UTC)),
            lambda: cdp.identify("cust-ada", {"plan": "team", "first_name": "Zoë"}),
        ],
        "track": [
            lambda: cdp.track("cust-ada", "report_viewed", {"pages": 3}),
            lambda: cdp.track("cust-ivy", "Order Refunded", {"total": 12.5}, timestamp=datetime.now(UTC)),
            lambda: cdp.track(event="pricing_viewed", anonymous_id="anon-ada"),
        ],
        "page": [lambda: cdp.page("cust-ada", name="Pricing", properties={"url": "https://shop.example.com/pricing"})],
        "screen": [lambda: cdp.screen("cust-ivy", name="Home")],
        "group": [lambda: cdp.group("cust-ada", "acme", {"name": "Acme", "seats": 40})],
        "alias": [lambda: cdp.alias("anon-ada", "cust-ada")],
        "flush": [] if cdp.sync_mode else [cdp.flush],
        "join": [],
        "shutdown": [] if cdp.sync_mode else [cdp.shutdown],
    }


for sync_mode in True, False:
    for gzip in False, True:
        # Both families of keys: an older one travels as Basic, one with a prefix as Bearer.
        write_key = f"sk_us_{session.key(32)}" if gzip else session.key(20)
        mode = f"sync_mode={sync_mode}, gzip={gzip}"
        cdp = Client(
            write_key,
            host=proxy,
            sync_mode=sync_mode,
            gzip=gzip,
            on_error=lambda error, _, mode=mode: report(f"Client upload ({mode})", str(error)),
        )
        for method in session.public_methods(Client):
            if method not in steps(cdp) and method != "DefaultConfig":
                report(f"Client.{method}", f"method {method} has no step")
        for method, calls in steps(cdp).items():
            for call in calls:
                step(f"Client.{method} ({mode})", call)
