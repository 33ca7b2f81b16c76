"""Check what `make dist` has built: what is in it, and that an Airflow with nothing but the wheel runs a DAG.

The Python of that clean environment runs it, isolated (`-I`), so that nothing of this checkout can be imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import machfive_provider
from machfive_provider.sandbox import Sandbox, SandboxSettings

NAME = "airflow-provider-machfive"
ROOT = Path(__file__).resolve().parent.parent
SOURCES = "provider/"
DAG_ID = "machfive_batch"


class DistributionError(RuntimeError):
    """What was built is not what it should be."""


def main(folder: Path, rebuilt: Path) -> None:
    """Check the wheel and the source distribution in `folder`, of which `rebuilt` holds the wheel of the checkout."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_contents(wheel, sdist)
    expect("the wheel built from the sdist", wheel.read_bytes(), (rebuilt / wheel.name).read_bytes())
    expect("the installed version", version(NAME), machfive_provider.__version__)
    if Path(machfive_provider.__file__).is_relative_to(ROOT / SOURCES):
        raise DistributionError("The checkout was imported in place of the wheel.")
    with tempfile.TemporaryDirectory() as home:
        check_airflow(Path(home))
    print(f"{wheel.name} and {sdist.name} are as they should be: {DAG_ID} ran in a clean Airflow.")


def check_contents(wheel: Path, sdist: Path) -> None:
    """The sdist holds every file of the repository, the wheel every file of the package; neither holds more."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 - wherever git is
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    tracked = {each for each in listed.stdout.split("\0") if each}
    with tarfile.open(sdist) as archive:
        top = sdist.name.removesuffix(".tar.gz")
        packed = {member.name.removeprefix(f"{top}/") for member in archive.getmembers() if member.isfile()}
    expect("the sdist", packed - {"PKG-INFO"}, tracked)
    with zipfile.ZipFile(wheel) as archive_of_wheel:
        installed = {name for name in archive_of_wheel.namelist() if ".dist-info/" not in name}
    expect("the wheel", installed, {each.removeprefix(SOURCES) for each in tracked if each.startswith(SOURCES)})


def check_airflow(home: Path) -> None:
    """Airflow knows the provider and its plugin, and runs an example against a sandbox."""
    results = home / "results"
    results.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "MACHFIVE_RESULTS": str(results),
    }
    provider = json.loads(airflow("providers", "get", NAME, "-o", "json", environment=environment))
    expect("the provider's version", provider[0]["Version"], machfive_provider.__version__)
    plugins = json.loads(airflow("plugins", "-o", "json", environment=environment))
    expect("the plugins", [each["name"] for each in plugins if each["name"] == "machfive"], ["machfive"])
    airflow("db", "migrate", environment=environment)
    with Sandbox(SandboxSettings(processing_seconds=1.0)) as sandbox:
        connection = {"conn_type": "machfive", "host": sandbox.base_url, "password": sandbox.api_key}
        environment["AIRFLOW_CONN_MACHFIVE_DEFAULT"] = json.dumps(connection)
        environment["MACHFIVE_CAMPAIGN"] = sandbox.workspaces[0].campaigns[0].name
        airflow("dags", "test", DAG_ID, environment=environment)
        bought = sum(len(purchase.emails) for purchase in sandbox.purchases)
    (written,) = results.glob("*.jsonl")
    expect("the leads in the DAG's result", len(written.read_text().splitlines()), bought)


def airflow(*arguments: str, environment: Mapping[str, str]) -> str:
    """Run one command of Airflow; return the last line of what it prints."""
    command = [sys.executable, "-m", "airflow", *arguments]
    done = subprocess.run(  # noqa: S603 - this Python
        command, env=environment, cwd=environment["AIRFLOW_HOME"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DistributionError(f"airflow {' '.join(arguments)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout.strip().rpartition("\n")[2]


def expect(what: str, found: object, expected: object) -> None:
    """Raise if something is not as expected."""
    if found == expected:
        return
    if isinstance(found, set) and isinstance(expected, set):
        raise DistributionError(f"{what}: lacks {sorted(expected - found)}, has also {sorted(found - expected)}")
    raise DistributionError(f"{what}: {str(found)[:200]}, not {str(expected)[:200]}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
