"""Where the benchmarks run: an environment with this checkout, the same Airflow, the peers and matplotlib.

It is made with what ``make`` has installed, and made again when what it is made of changes. A peer that cannot be
installed is recorded as absent with the reason; the others are measured without it, and it is tried again next time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

__all__ = ["PACKAGES", "ROOT", "absent", "enter", "inside", "prepare", "version"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-bench"
STAMP = FOLDER / ".installed.json"

PACKAGES = {
    "dbt Cloud": "apache-airflow-providers-dbt-cloud",
    "Airbyte": "apache-airflow-providers-airbyte",
    "HTTP": "apache-airflow-providers-http",
    "Anthropic": "apache-airflow-providers-anthropic",
    "matplotlib": "matplotlib",
}
_WHERE = re.compile(r"\S*(?:://|/)\S*")  # the report shows no addresses and paths of this machine


def inside() -> bool:
    """Whether this process runs in the benchmarks' environment."""
    return Path(sys.prefix).resolve() == FOLDER


def enter(module: str, arguments: Iterable[str] | None = None) -> int:
    """Run a module of this package inside the environment, with this process's arguments; return its exit status."""
    python = prepare()
    given = sys.argv[1:] if arguments is None else arguments
    # Read by `import airflow`: not the user's own, and none of what was set for another environment.
    env = {**os.environ, "AIRFLOW_HOME": str(ROOT / ".airflow-bench")}
    return subprocess.run([str(python), "-m", module, *given], cwd=ROOT, env=env, check=False).returncode


def prepare() -> Path:
    """Make the environment, if it is not there yet; return its interpreter."""
    python, inputs = FOLDER / "bin" / "python", _inputs()
    kept = _stamp()
    if python.exists() and kept.get("inputs") == inputs and not kept.get("absent"):
        return python
    print("installing the peers into an environment of the benchmarks' own", flush=True)
    subprocess.run([*_uv("venv"), "--allow-existing", "--python", sys.executable, str(FOLDER)], check=True)
    reasons = _install(python)
    STAMP.write_text(json.dumps({"inputs": inputs, "absent": reasons}, indent=1))
    return python


def absent(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of the peers that could not be installed, each with the reason."""
    reasons = _stamp().get("absent", {})
    return tuple(f"{name}: {reasons[name]}" for name in names if name in reasons)


def version(package: str) -> str:
    """Return the version of an installed package, or a word that says that it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _install(python: Path) -> dict[str, str]:
    """Install all; return by name those peers that could not be, with the reason."""
    base = [f"apache-airflow=={version('apache-airflow')}", "-e", f"{ROOT}[dev,sandbox]"]
    if not _pip(python, [*base, *PACKAGES.values()]):
        return {}
    if reason := _pip(python, base):
        raise RuntimeError(f"the benchmarks' environment could not be made: {reason}")
    # One after the other, each beside those that went before: none may change what another has brought.
    present, reasons = [*base], {}
    for name, package in PACKAGES.items():
        if reason := _pip(python, [*present, package]):
            reasons[name] = f"{package} could not be installed: {reason}"
        else:
            present.append(package)
    return reasons


def _pip(python: Path, wanted: list[str]) -> str:
    """Install; return why it failed, or nothing."""
    command = [*_uv("pip", "install"), "--python", str(python), "--exclude-newer", _date(), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    return _reason(done.stderr) or f"exit status {done.returncode}"


def _reason(output: str) -> str:
    return " ".join(_WHERE.sub("", output).split())[:200]


def _uv(*command: str) -> list[str]:
    return [sys.executable, "-m", "uv", *command, "--quiet"]


def _date() -> str:
    """Return the date as of which packages are installed: that of the Makefile, so that the peers fit its Airflow."""
    given = os.environ.get("EXCLUDE_NEWER")
    return given or re.search(r"^AIRFLOW_DATE := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]


def _inputs() -> list[str]:
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    return [sys.version, version("apache-airflow"), _date(), project, *PACKAGES.values()]


def _stamp() -> dict:
    return json.loads(STAMP.read_text()) if STAMP.exists() else {}
