"""Dashboards: as they were made, without faults that Grafana would show only to whoever opens them, and with queries that promtool takes."""

import json

import pytest

import dashboards
import promql

FILES = {file.name: json.loads(file.read_text()) for file in sorted(dashboards.FOLDER.glob("*.json"))}
# What a scrape and the Prometheus operator add to every series.
TARGET = {"namespace", "job", "instance", "pod"}


def panels(dashboard):
    """Panels that show something."""
    return [one for one in dashboard["panels"] if one["type"] != "row"]


def queries(dashboard):
    """Queries, each with the title of its panel."""
    return [(one["title"], target["expr"]) for one in panels(dashboard) for target in one["targets"]]


def sources(value):
    """Everything that names a data source."""
    if isinstance(value, dict):
        yield from ([value["datasource"]] if "datasource" in value else [])
        for part in value.values():
            yield from sources(part)
    elif isinstance(value, list):
        for part in value:
            yield from sources(part)


def test_they_are_what_the_list_of_panels_makes():
    made = dashboards.written()
    assert set(FILES) == set(made) == {"sweeps.json", "workers.json"}
    for name, text in made.items():
        assert (dashboards.FOLDER / name).read_text() == text, f"{name} is old; run scripts/chart.sh --write"


@pytest.mark.parametrize("name", FILES)
def test_nothing_depends_on_one_grafana(name):
    one = FILES[name]
    assert list(sources(one)) and all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources(one))
    assert [variable["name"] for variable in one["templating"]["list"]] == ["datasource", "namespace", "job"]
    for variable in one["templating"]["list"][1:]:
        assert variable["includeAll"] and variable["multi"] and variable["allValue"] == ".*"
    assert "__inputs" not in one and "id" not in one and one["uid"] == f"mehl-soup-{name.removesuffix('.json')}"


@pytest.mark.parametrize("name", FILES)
def test_every_panel_says_what_it_shows(name):
    titles = [one["title"] for one in FILES[name]["panels"]]
    assert len(set(titles)) == len(titles)
    for one in panels(FILES[name]):
        assert one["fieldConfig"]["defaults"]["unit"], one["title"]
        assert one["description"].endswith(".") and len(one["description"]) > 30, one["title"]
        assert one["targets"] and one["datasource"], one["title"]
        references = [target["refId"] for target in one["targets"]]
        assert len(set(references)) == len(references)


@pytest.mark.parametrize("name", FILES)
def test_panels_do_not_overlap(name):
    taken = set()
    for one in FILES[name]["panels"]:
        place = one["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, one["title"]
        taken |= cells
    ids = [one["id"] for one in FILES[name]["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", FILES)
def test_every_query_asks_for_series_that_there_are(name):
    known = promql.registry()
    for title, query in queries(FILES[name]):
        found = promql.series(query)
        assert found, title
        for full, labels in found:
            if full.startswith("DCGM_"):
                assert labels == {"exported_namespace"}, title
                continue
            base, is_part = promql.plain(full, known)
            kind, own = known[base]
            assert {"namespace", "job"} <= labels <= own | TARGET, f"{title}: {full}"
            # A counter's own value says how old its process is, and the rate of a gauge nothing at all.
            assert (kind == "counter" or is_part) == (full in promql.rates(query)), f"{title}: {full}"
            assert kind != "histogram" or is_part, f"{title}: {full}"


@pytest.mark.parametrize("name", FILES)
def test_rates_are_over_what_grafana_chooses(name):
    for title, query in queries(FILES[name]):
        assert query.count("rate(") + query.count("increase(") == query.count("[$__rate_interval])"), title
        assert query.count("[") == query.count("[$__rate_interval]") + query.count("[$__range:]"), title


def test_promtool_parses_every_query():
    promql.check_queries([query for one in FILES.values() for _, query in queries(one)])


def test_every_series_is_on_a_dashboard_but_a_few():
    known = promql.registry()
    shown = {promql.plain(full, known)[0] for one in FILES.values() for _, query in queries(one) for full, _ in promql.series(query)}
    # The variables are made of it.
    assert set(known) - shown == {"mehl_soup_build_info"}
