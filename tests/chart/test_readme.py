"""The chart's README: its table is that of values.yaml, and every value has a comment."""

import yaml

import readme


def test_the_table_is_that_of_the_values():
    text = (readme.CHART / "README.md").read_text()
    assert text == readme.with_table(text), "charts/mehl-soup/README.md: its table is old; run scripts/chart.sh --write"


def test_every_value_is_documented():
    text = (readme.CHART / "values.yaml").read_text()
    rows = readme.documented(text)
    assert readme.undocumented(yaml.safe_load(text), dict(rows)) == []
    assert len(rows) == text.count(readme.MARK)


def test_the_versions_are_those_of_the_programs():
    chart = yaml.safe_load((readme.CHART / "Chart.yaml").read_text())
    manifest = (readme.CHART.parents[1] / "Cargo.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in manifest
