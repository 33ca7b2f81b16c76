"""What Airflow's providers manager reads, held to Airflow's own schema and to what is there."""

from __future__ import annotations

import importlib
import json
import pkgutil
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
KINDS = {
    "hooks": BaseHook,
    "operators": BaseOperator,
    "sensors": BaseOperator,
    "transfers": BaseOperator,
    "triggers": BaseTrigger,
}


def defined(folder: str, base: type) -> set[str]:
    """Return the dotted paths of the classes of a kind that the folder's modules define, their base classes left out.

    MachFive is in the name of what a user names, and not in a base class's.
    """
    package = importlib.import_module(f"machfive_provider.{folder}")
    found = set()
    for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        found |= {
            f"{each.name}.{name}"
            for name, value in vars(importlib.import_module(each.name)).items()
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == each.name
            if "MachFive" in name
        }
    return found


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


@pytest.mark.parametrize("folder", KINDS)
def test_every_module_that_brings_something_is_listed_and_no_other(folder: str):
    listed = [module for each in INFO[folder] for module in each.get("python-modules") or [each["python-module"]]]
    assert sorted(listed) == sorted({path.rpartition(".")[0] for path in defined(folder, KINDS[folder])})


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
