"""The Grafana dashboard and the alerts against what the proxy counts, and the shape of the dashboard."""

from itertools import combinations
from typing import Any

import pytest

from .shipped import CLOSED, DASHBOARD, TARGET_LABELS, Query, panels, placed, played, queries, registered, selectors

PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}


@placed([*queries(), *played()])
def test_a_query_names_metrics_labels_and_values_that_the_proxy_has(query: Query) -> None:
    """A metric that is renamed must be renamed here too."""
    metrics = registered()
    selected = list(selectors(query.expr))
    assert selected
    for name, labels in selected:
        assert name in metrics
        assert labels.keys() <= metrics[name] | TARGET_LABELS
        for label, value in labels.items():
            if label in CLOSED and not value.startswith("$"):
                assert set(value.split("|")) <= set(CLOSED[label])


@placed(panels())
def test_a_panel_is_filtered_by_job_and_instance(query: Query) -> None:
    for _, labels in selectors(query.expr):
        assert (labels["job"], labels["instance"]) == ("$job", "$instance")


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_in_which_unit_and_asks_the_chosen_prometheus(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    units = [panel["fieldConfig"]["defaults"].get("unit")]
    units += [
        each["value"]
        for over in panel["fieldConfig"]["overrides"]
        for each in over["properties"]
        if each["id"] == "unit"
    ]
    assert any(units)


def test_the_figures_stand_on_top_and_no_panel_covers_another() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert {panel["type"] for panel in DASHBOARD["panels"] if panel["gridPos"]["y"] == 0} == {"stat"}
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or apart
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(PANELS) == len(places)


def test_each_rule_of_the_table_has_its_meaning_and_a_link_to_its_source() -> None:
    overrides = {
        over["matcher"]["options"]: {each["id"]: each["value"] for each in over["properties"]}
        for over in PANELS["Rules that fired"]["fieldConfig"]["overrides"]
    }
    for column in ("meaning", "source"):
        assert overrides[column]["mappings"][0]["options"].keys() == set(CLOSED["rule"])
    sources = overrides["source"]["mappings"][0]["options"].values()
    assert all(source["text"].startswith("https://") for source in sources)
    assert overrides["source"]["links"][0]["url"] == "${__value.text}"
