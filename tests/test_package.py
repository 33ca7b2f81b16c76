"""What importing costs and what is shipped."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
from packaging.version import Version

import machfive_provider
from scripts import matrix

PACKAGE = Path(machfive_provider.__file__).parent
MODULES = [
    each.name
    for each in pkgutil.walk_packages(machfive_provider.__path__, "machfive_provider.")
    if not each.name.endswith("__main__")
]

NO_NETWORK = """
import socket, sys
def refuse(*args, **kwargs):
    raise RuntimeError("network!")
for name in ("create_connection", "getaddrinfo", "gethostbyname"):
    setattr(socket, name, refuse)
for name in ("connect", "connect_ex", "bind", "sendto"):
    setattr(socket.socket, name, refuse)
try:
    socket.socket().connect(("127.0.0.1", 9))
except RuntimeError:
    pass
else:
    sys.exit("the block does not block")
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("\n")[2]


def test_provider_info_loads_next_to_nothing():
    loaded = run(
        "import sys, machfive_provider.get_provider_info as info; info.get_provider_info(); "
        "print(*sorted(name for name in sys.modules if name.partition('.')[0] in "
        "('airflow', 'httpx', 'ijson', 'pendulum', 'tenacity', 'email_validator', 'sqlalchemy')), sep=',')"
    )
    assert loaded == ""


def test_importing_does_no_network():
    imports = "\n".join(f"import {module}" for module in MODULES)
    assert run(f"{NO_NETWORK}\n{imports}\nprint('fine')") == "fine"


@pytest.mark.parametrize("name", [name for name in MODULES if f"{PACKAGE.name}.sandbox." not in name])
def test_each_module_says_what_it_offers(name: str):
    """`__all__` holds every public class and function that the module defines; ruff keeps it sorted (RUF022)."""
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        assert len((module.__doc__ or "").splitlines()) >= 3, "say what lives there and where to begin reading"
        assert "TODO" not in module.__doc__
        return
    offered = module.__all__
    defined = {
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) or inspect.isfunction(value)
        if value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert defined - set(offered) == set()
    assert [name for name in offered if not hasattr(module, name)] == []
    assert len(offered) == len(set(offered))


def test_parsing_a_dag_loads_no_http_client_and_no_trigger():
    loaded = run(
        "import sys, airflow.sdk; before = set(sys.modules); "
        "import machfive_provider.operators.generate, machfive_provider.operators.export; "
        "import machfive_provider.sensors.lead_list; import machfive_provider.triggers.list_event; "
        "import machfive_provider.transfers.sql_to_leads, machfive_provider.transfers.list_to_sql; "
        "import machfive_provider.pipeline.task_group; "
        "new = set(sys.modules) - before; "
        "heavy = ('httpx', 'ijson', 'tenacity', 'email_validator', 'pyarrow', 'sqlalchemy', 'openlineage', "
        "'opentelemetry'); "
        "own = ('machfive_provider.api.client', 'machfive_provider.triggers.lead_list'); "
        "print(*sorted(name for name in new if name.partition('.')[0] in heavy or name in own), sep=',')"
    )
    assert loaded == ""


@pytest.mark.skipif(
    Version(version("apache-airflow")).release < (3, 3), reason="refused before there is anything to load"
)
def test_nor_does_a_sensor_that_starts_in_the_triggerer():
    loaded = run(
        "import sys, airflow.sdk; before = set(sys.modules); "
        "from machfive_provider.sensors.lead_list import MachFiveListSensor as Sensor; "
        "Sensor(task_id='wait', list_id='{{ params.list_id }}', start_from_trigger=True); "
        "new = set(sys.modules) - before; heavy = ('httpx', 'ijson', 'tenacity', 'email_validator', 'sqlalchemy'); "
        "own = ('machfive_provider.api.client', 'machfive_provider.triggers'); "
        "print(*sorted(name for name in new if name.partition('.')[0] in heavy or name.startswith(own)), sep=',')"
    )
    assert loaded == ""


def test_py_typed_is_shipped():
    assert (PACKAGE / "py.typed").is_file()


def test_one_version():
    assert version("airflow-provider-machfive") == machfive_provider.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", machfive_provider.__version__)


def test_no_file_that_is_published_quotes_a_key():
    """detect-secrets, part of ``make dist``, does not know MachFive's; tests quote made-up ones."""
    root = PACKAGE.parent.parent
    folders = [root / name for name in ("provider", "scripts", "docs", "example_dags", "changelog.d", ".github")]
    files = [*root.glob("*.md"), *(path for folder in folders for path in folder.rglob("*"))]
    texts = [path for path in files if path.suffix in (".py", ".md", ".yml", ".html", ".js", ".csv", ".json", ".yaml")]
    assert len(texts) > 150
    assert [path for path in texts if re.search(r"mf_(live|test)_\w{12}", path.read_text())] == []


def test_what_is_supported_is_what_the_matrix_runs():
    about = metadata("airflow-provider-machfive")
    said = {each.rpartition(" ")[2] for each in about.get_all("Classifier") if ":: Python :: 3." in each}
    assert said == {cell.python for cell in matrix.CELLS}
    lowest = min((cell.airflow for cell in matrix.CELLS), key=Version)
    assert f"apache-airflow>={lowest}" in requires("airflow-provider-machfive")


def test_metadata():
    about = metadata("airflow-provider-machfive")
    assert about["Requires-Python"] == ">=3.11"
    needed = {
        re.split(r"[^A-Za-z0-9-]", each)[0] for each in requires("airflow-provider-machfive") if "extra ==" not in each
    }
    assert {"apache-airflow", "httpx", "ijson"} <= needed
