"""What importing costs and what is shipped."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
from packaging.version import Version

import machfive_provider

PACKAGE = Path(machfive_provider.__file__).parent

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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
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
    modules = ("operators.generate", "operators.export", "sensors.lead_list", "hooks.machfive", "triggers.lead_list")
    others = ("triggers.capacity", "triggers.list_start")
    imports = "\n".join(f"import machfive_provider.{module}" for module in (*modules, *others))
    assert run(f"{NO_NETWORK}\n{imports}\nprint('fine')") == "fine"


def test_parsing_a_dag_loads_no_http_client_and_no_trigger():
    loaded = run(
        "import sys, airflow.sdk; before = set(sys.modules); "
        "import machfive_provider.operators.generate, machfive_provider.operators.export; "
        "import machfive_provider.sensors.lead_list; new = set(sys.modules) - before; "
        "heavy = ('httpx', 'ijson', 'tenacity', 'email_validator'); "
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


def test_httpx_is_imported_in_the_api_alone():
    importing = re.compile(r"^\s*(import|from) httpx", re.MULTILINE)
    found = {
        file.relative_to(PACKAGE).parts[0]
        for file in PACKAGE.rglob("*.py")
        if importing.search(file.read_text("utf-8"))
    }
    assert found == {"api"}


def test_py_typed_is_shipped():
    assert (PACKAGE / "py.typed").is_file()


def test_one_version():
    assert version("airflow-provider-machfive") == machfive_provider.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", machfive_provider.__version__)


def test_metadata():
    about = metadata("airflow-provider-machfive")
    assert about["Requires-Python"] == ">=3.11"
    needed = {
        re.split(r"[^A-Za-z0-9-]", each)[0] for each in requires("airflow-provider-machfive") if "extra ==" not in each
    }
    assert {"apache-airflow", "httpx", "ijson"} <= needed
