"""The rules, one pitfall a file, and the literal list of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cio_proxy.model import (
    Call,
    Deadline,
    Fact,
    Finding,
    Form,
    Key,
    Known,
    Limit,
    Outcome,
    People,
    RuleInfo,
    Settings,
    Unavailable,
)
from cio_proxy.rules import (
    ambiguous_identifier,
    anonymous_id_not_merged,
    blocking_on_analytics,
    changing_user_id,
    duplicate_event,
    dynamic_event_name,
    hardcoded_credentials,
    ignored_bounce,
    inconsistent_attribute_type,
    inconsistent_event_name,
    invalid_event_id,
    invalid_field,
    invalid_webhook_signature,
    malformed_body,
    millisecond_timestamp,
    missing_email,
    missing_unsubscribe_link,
    no_connection_pooling,
    no_rate_limiting,
    oversized_payload,
    pii_in_name,
    placeholder_identifier,
    redirected_recipient,
    redundant_identify,
    reserved_name,
    sensitive_value,
    shared_anonymous_id,
    split_identity,
    stale_timestamp,
    track_before_identify,
    trigger_on_every_update,
    unknown_endpoint,
    unmonitored_complaints,
    unplanned_event,
    wrong_api_key,
    wrong_region,
)

MODULES: tuple[ModuleType, ...] = (
    wrong_api_key,
    millisecond_timestamp,
    hardcoded_credentials,
    track_before_identify,
    changing_user_id,
    anonymous_id_not_merged,
    inconsistent_event_name,
    dynamic_event_name,
    blocking_on_analytics,
    missing_email,
    inconsistent_attribute_type,
    pii_in_name,
    missing_unsubscribe_link,
    trigger_on_every_update,
    no_connection_pooling,
    no_rate_limiting,
    ignored_bounce,
    unmonitored_complaints,
    malformed_body,
    invalid_field,
    oversized_payload,
    reserved_name,
    unknown_endpoint,
    wrong_region,
    placeholder_identifier,
    ambiguous_identifier,
    stale_timestamp,
    invalid_event_id,
    invalid_webhook_signature,
    redirected_recipient,
    sensitive_value,
    duplicate_event,
    shared_anonymous_id,
    split_identity,
    unplanned_event,
    redundant_identify,
)

type Results = Iterable[Finding | Unavailable]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule file, taken apart: its prose and its pure functions. Those it does not have are None."""

    info: RuleInfo
    title: str
    prose: str
    """What happens at Customer.io."""
    fix: str
    see: tuple[str, ...]
    examples: Path
    applies: Callable[[Settings], bool] | None
    """Whether the rule has anything to do under a configuration; where it has not, it does not run."""
    concerns: Callable[[Form], bool] | None
    """Whether the rule may have anything to say or to learn of calls of a form; it is not asked about others."""
    check: Callable[[Call, Known], Results] | None
    needs: Callable[[Call, People], Iterable[Key]] | None
    learn: Callable[[Call, Outcome, Mapping[str, Any]], Iterable[Fact]] | None
    review: Callable[[Call, Outcome, Known], Iterable[Finding | Unavailable | Fact]] | None
    due: Callable[[Deadline, Known], Results] | None
    limit: Callable[[Call, Mapping[str, Any]], Limit | None] | None
    """How fast such calls may be sent, where the operator paces or refuses them."""
    excess: Callable[[Call, Limit], Finding] | None
    """The finding of a call that is too fast."""


def rule_of(module: ModuleType) -> Rule:
    """Read a rule module. Raises ValueError when its docstring has not the four parts of design §3."""
    title, _, rest = inspect.cleandoc(module.__doc__ or "").partition("\n\n")
    prose, fix, see = [], "", []
    for paragraph in rest.split("\n\n"):
        if paragraph.startswith("Fix:"):
            fix = " ".join(paragraph[4:].split())
        elif paragraph.startswith("See "):
            see = [line[4:] for line in paragraph.splitlines() if line.startswith("See ")]
        else:
            prose.append(paragraph)
    if not (title and prose and fix and see):
        raise ValueError(f"{module.__name__}: the docstring needs a title, prose, a `Fix:` and a `See` paragraph")
    return Rule(
        info=module.RULE,
        title=" ".join(title.split()).rstrip("."),
        prose="\n\n".join(prose),
        fix=fix,
        see=tuple(see),
        examples=Path(str(module.__file__)).with_suffix(".http"),
        applies=getattr(module, "applies", None),
        concerns=getattr(module, "concerns", None),
        check=getattr(module, "check", None),
        needs=getattr(module, "needs", None),
        learn=getattr(module, "learn", None),
        review=getattr(module, "review", None),
        due=getattr(module, "due", None),
        limit=getattr(module, "limit", None),
        excess=getattr(module, "excess", None),
    )


RULES: tuple[Rule, ...] = tuple(rule_of(module) for module in MODULES)
