"""Copies the leads of a sales database, read as JSON lines from standard input, with `customerio-cdp-analytics`.

STORY=planted CIO_PROXY_URL=http://127.0.0.1:8080 python leads.py <leads.jsonl
"""

import json
import os
import sys

from customerio.analytics.client import Client

IS_PLANTED = os.environ["STORY"] == "planted"

cdp = Client(
    os.environ["CIO_PIPELINES_KEY"], host=os.environ["CIO_PROXY_URL"], on_error=lambda error, _: sys.exit(error)
)
for line in sys.stdin:
    lead = json.loads(line)
    user = lead["email"] if IS_PLANTED else lead["id"]  # an address changes, the key of a row does not
    cdp.identify(user, {"email": lead["email"], "company": lead["company"]})
    cdp.track(user, "lead_copied", {"company": lead["company"]})
cdp.shutdown()
