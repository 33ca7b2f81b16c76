"""What Airflow's providers manager reads, held to Airflow's own schema and to what is there."""

from __future__ import annotations

import importlib
import json
from importlib.metadata import entry_points
from pathlib import Path

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator
from airflow.triggers.base import BaseTrigger

from machfive_provider import __version__
from machfive_provider.get_provider_info import get_provider_info
from machfive_provider.hooks.machfive import MachFiveHook

INFO = get_provider_info()
SECTIONS = ("hooks", "operators", "sensors", "triggers")
MODULES = [module for section in SECTIONS for each in INFO[section] for module in each["python-modules"]]


def load(path: str):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_it_fits_airflows_schema():
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def test_it_is_plain_json():
    assert json.loads(json.dumps(INFO)) == INFO


def test_airflow_finds_it_by_the_entry_point():
    found = [
        each for each in entry_points(group="apache_airflow_provider") if each.value.startswith("machfive_provider.")
    ]
    assert [each.load() for each in found] == [get_provider_info]


def test_name_and_version():
    assert (INFO["package-name"], INFO["name"]) == ("airflow-provider-machfive", "MachFive")
    assert INFO["versions"] == [__version__]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_imports_and_brings_its_kind(module: str):
    base = {"hooks": BaseHook, "operators": BaseOperator, "sensors": BaseOperator, "triggers": BaseTrigger}[
        module.split(".")[1]
    ]
    loaded = importlib.import_module(module)
    own = [each for each in vars(loaded).values() if isinstance(each, type) and each.__module__ == module]
    assert any(issubclass(each, base) for each in own)


def test_every_operator_sensor_and_trigger_of_the_package_is_listed():
    public = {
        "MachFiveGenerateBatchOperator": "operators",
        "MachFiveGenerateOperator": "operators",
        "MachFiveExportListOperator": "operators",
        "MachFiveListSensor": "sensors",
        "MachFiveListTrigger": "triggers",
        "MachFiveCapacityTrigger": "triggers",
        "MachFiveHook": "hooks",
    }
    for name, section in public.items():
        listed = [module for each in INFO[section] for module in each["python-modules"]]
        assert any(
            getattr(vars(importlib.import_module(module)).get(name), "__module__", "") == module for module in listed
        )


def test_the_connection_type():
    (kind,) = INFO["connection-types"]
    assert load(kind["hook-class-name"]) is MachFiveHook
    assert (kind["connection-type"], kind["hook-name"]) == (MachFiveHook.conn_type, MachFiveHook.hook_name)
    assert set(kind["conn-fields"]) == {"namespace", "max_concurrent_batches"}


@pytest.mark.parametrize("field", INFO["connection-types"][0]["conn-fields"])
def test_the_form_fields_have_what_airflow_reads(field: str):
    described = INFO["connection-types"][0]["conn-fields"][field]
    assert set(described) <= {"label", "description", "schema"}
    assert described["label"]
    assert "null" in described["schema"]["type"]  # left empty, it must not be refused
    jsonschema.Draft202012Validator.check_schema(described["schema"])


def test_the_form_hides_what_is_not_used():
    behaviour = INFO["connection-types"][0]["ui-field-behaviour"]
    assert set(behaviour) == {"hidden-fields", "relabeling", "placeholders"}
    assert {"password", "host"}.isdisjoint(behaviour["hidden-fields"])
    assert behaviour["relabeling"]["password"] == "API key"
    assert behaviour["relabeling"]["host"] == "Base URL"


@pytest.mark.parametrize("link", INFO["extra-links"])
def test_the_extra_links_exist(link: str):
    assert load(link)().name
