"""docs/telemetry.md, its dashboard and its mapping name the metrics and spans that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from machfive_provider import telemetry

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "telemetry.md").read_text()
DASHBOARD = json.loads((DOCS / "telemetry" / "grafana-dashboard.json").read_text())
MAPPINGS = yaml.safe_load((DOCS / "telemetry" / "statsd-mapping.yml").read_text())["mappings"]


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table whose first row begins with this."""
    lines = PAGE.partition(f"\n| {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def mapped(name: str) -> dict[str, Any]:
    """Return the first mapping of statsd_exporter that matches, as it takes the first; * is a part without dots."""
    for each in MAPPINGS:
        if re.fullmatch(re.escape(each["match"]).replace(r"\*", "[^.]+"), f"airflow.{name}"):
            return each
    raise AssertionError(f"no mapping for {name}")


def queried() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            found = re.findall(r"machfive_\w+", target["expr"])
            assert found, target
            yield from (each.removesuffix("_bucket") for each in found)


def test_the_table_of_metrics():
    documented = [(name, kind, tuple(tags.split(", "))) for name, kind, tags, _ in table("metric")]
    assert documented == [tuple(each) for each in telemetry.METRICS]


def test_the_table_of_spans():
    assert tuple(name for name, *_ in table("span")) == telemetry.SPANS


def test_the_endpoints():
    (sentence,) = re.findall(r"`endpoint` is (.*?), never", PAGE, re.DOTALL)
    assert re.findall(r"`(\w+)`", sentence) == list(telemetry.ENDPOINTS.values())


def test_every_metric_reaches_prometheus_and_the_dashboard():
    names = [re.sub("<[a-z]+>", "x", each.name) for each in telemetry.METRICS]
    found = [mapped(name) for name in names]
    assert [name for name, each in zip(names, found, strict=True) if each.get("action") == "drop"] == [
        "machfive.requests"
    ]
    assert {each["name"] for each in found if each.get("action") != "drop"} == set(queried())
    assert all(each in found for each in MAPPINGS)


def test_labels_of_the_dashboard_are_those_of_the_mapping():
    labels = {each["name"]: set(each.get("labels", {})) for each in MAPPINGS}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            known = labels[re.findall(r"machfive_\w+", target["expr"])[0].removesuffix("_bucket")] | {"le"}
            used = {
                *re.findall(r"(\w+)(?:=|!~)\"", target["expr"]),
                *(name.strip() for names in re.findall(r"by \((.*?)\)", target["expr"]) for name in names.split(",")),
                *re.findall(r"{{(\w+)}}", target["legendFormat"]),
            }
            assert used <= known, target


def test_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells
