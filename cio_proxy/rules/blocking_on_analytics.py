"""The app's own users wait for Customer.io.

A request that awaits its identify or event takes as long as Customer.io does: 10 seconds where it does not answer, and
with customerio-node's retries 30 more. Then a checkout fails because of analytics.

The proxy cannot see an `await`. With the inbound listener it can try: the latency probe (`probe.share`, off by default)
holds back the answers of a few calls, picked by chance, by a known delay. Where the app's own answers follow the late
ones, and do not where nothing was held, the app waits: that is proof. That a call is answered shortly before the app
answers is no more than a hint, since whoever does not wait may be just as quick.

Awaiting in a background job is right, and nobody is accused of it: no request of a user is open then.

Fix: send without awaiting, and handle errors where they happen; or put calls into a queue that a worker sends.

See https://docs.customer.io/integrations/sdk/node/
See https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

from cio_proxy.model import Call, Finding, Known, Outcome, Param, RuleInfo, Settings, Unavailable, Waits

Z = 3.29
"""One in two thousand: how often pure chance may look like waiting, at one look."""

RULE = RuleInfo(
    id="blocking-on-analytics",
    severity="warning",
    category="3",
    kinds=frozenset({"other"}),
    apis=frozenset({"unknown"}),
    actions=("off", "log", "default"),
    params={
        "effect": Param(20, "how many per cent more of the held calls than of the others must be followed, at least"),
        "samples": Param(100, "how many calls make a hint where nothing was held"),
    },
)


def applies(settings: Settings) -> bool:
    """There is nothing to see without the inbound listener."""
    return settings.inbound is not None


def review(call: Call, outcome: Outcome, known: Known) -> Iterator[Finding | Unavailable]:
    """Judge what the probe has gathered by this answer of the app's."""
    for waits in outcome.waits:
        if waits.held:
            least = difference(waits)
            if least >= known.params["effect"] / 100:
                yield _proved(waits)
        elif not waits.traced:
            yield Unavailable("nothing was held back, and no trace tells which request a call is part of")
        elif waits.free < known.params["samples"]:
            yield Unavailable("nothing was held back, and there are too few calls for a hint")
        elif waits.nested >= 0.95 * waits.free:
            yield _hint(waits)


def difference(waits: Waits) -> float:
    """By how much the share of followed calls is higher among the held ones, at the least that chance leaves.

    Newcombe's interval for the difference of two proportions, from Wilson's for each: it holds for shares near 0 and 1.
    """
    if not waits.held or not waits.free:
        return 0.0
    held, free = waits.held_followed / waits.held, waits.free_followed / waits.free
    low, _ = _wilson(held, waits.held)
    _, high = _wilson(free, waits.free)
    return held - free - sqrt((held - low) ** 2 + (high - free) ** 2)


def _wilson(share: float, number: int) -> tuple[float, float]:
    middle = share + Z * Z / (2 * number)
    spread = Z * sqrt(share * (1 - share) / number + Z * Z / (4 * number * number))
    scale = 1 + Z * Z / number
    return (middle - spread) / scale, (middle + spread) / scale


def _proved(waits: Waits) -> Finding:
    return RULE.finding(
        "path:",
        f"{waits.route} waits for Customer.io: of {waits.held} answers to {waits.call} that were held back by"
        f" {waits.delay * 1000:.0f} ms, {waits.held_followed} were followed by the app's own within"
        f" {waits.delay * 500:.0f} ms; of {waits.free} that were not held, {waits.free_followed}",
        effect="The app's users wait as long as Customer.io takes to answer: 10 seconds and more where it does not.",
        fix="Send without awaiting the answer, or from a background job.",
        confidence="certain",
        evidence={
            "held": waits.held,
            "held_followed": waits.held_followed,
            "free": waits.free,
            "free_followed": waits.free_followed,
            "difference_at_least": round(difference(waits), 2),
            "told_by": "trace" if waits.traced else "time",
        },
    )


def _hint(waits: Waits) -> Finding:
    return RULE.finding(
        "path:",
        f"{waits.route} may wait for Customer.io: of {waits.free} answers to {waits.call}, {waits.nested} came shortly"
        " before the app's own",
        effect="If it does, the app's users wait as long as Customer.io takes to answer.",
        fix="Send without awaiting the answer; the latency probe (probe.share) tells whether this is so.",
        confidence="possible",
        evidence={"calls": waits.free, "nested": waits.nested},
    )
