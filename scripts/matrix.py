"""Run the tests with each Airflow, Python and set of dependencies that is supported: `make test-matrix`.

A Python that is not installed comes from the Debian that has it: debootstrap unpacks that Debian, and the cell runs in
a mount namespace of its own in which Debian's /usr lies over this machine's. Nothing is mounted anywhere else, and
the mount ends with the cell's processes, however they end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).resolve().parent.parent
MATRIX = REPOSITORY / ".venv-matrix"
UV = Path(sys.executable).parent / "uv"


@dataclass(frozen=True)
class Cell:
    """One Airflow on one Python, with its dependencies of that time, or ours as old or as new as they may be.

    `whole`: with the tests that kill processes and those of the documentation's DAGs, which take long.
    """

    airflow: str
    python: str
    dependencies: str = ""
    whole: bool = False

    @property
    def name(self) -> str:
        """Return what `ONLY=` calls it."""
        return "-".join(filter(None, (self.airflow, self.python, self.dependencies)))


# Not in here: Python 3.12, which no Debian release has; Airflow 3.1 on Python 3.14, which it does not support.
CELLS = (
    Cell("3.1.8", "3.11", whole=True),
    Cell("3.3.2", "3.11", whole=True),
    Cell("3.2.2", "3.11"),
    Cell("3.1.8", "3.11", "lowest"),
    Cell("3.3.2", "3.11", "newest"),
    Cell("3.1.8", "3.13"),
    Cell("3.2.2", "3.13"),
    Cell("3.3.2", "3.13"),
    Cell("3.2.2", "3.14"),
    Cell("3.3.2", "3.14"),
)
# An Airflow release does not work with dependencies newer than it knows, so each is installed as of a date.
DATES = {
    # Days later comes apache-airflow-providers-standard 1.12.1, whose imports raise deprecation warnings under 3.1.
    "3.1.8": "2026-03-12",
    "3.2.2": "2026-06-01",
    "3.3.2": "2026-11-20",  # AIRFLOW_DATE in the Makefile
}
# Needed newer than that: our dependency is common-compat>=1.22.0, and the tests choose their event loops.
NEWER = ("apache-airflow-providers-common-compat", "pytest-asyncio")
DEBIANS = {"3.13": "trixie", "3.14": "forky"}


class NotRunError(Exception):
    """What a cell needs is not there."""


class FailedError(Exception):
    """A cell's environment cannot be made."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: what pytest counted, or why there is nothing to count."""

    cell: Cell
    ok: bool
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    remark: str = ""


def main() -> int:
    """Run the cells one after the other, print what became of each, and return 1 if one has failed."""
    parser = argparse.ArgumentParser(prog="make test-matrix", description=__doc__)
    parser.add_argument("--only", choices=[cell.name for cell in CELLS], metavar="CELL", help="%(choices)s")
    parser.add_argument("pytest", nargs="*", help="after --: what pytest runs instead of everything")
    arguments = parser.parse_args()
    chosen = [cell for cell in CELLS if arguments.only in {None, cell.name}]
    MATRIX.mkdir(exist_ok=True)
    outcomes = [run(cell, arguments.pytest) for cell in chosen]
    print(f"\n{'cell':<20}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>8}")
    for each in outcomes:
        counts = (each.passed, each.failed, each.skipped, round(each.seconds))
        print(f"{each.cell.name:<20}{''.join(f'{count:>8}' for count in counts)}  {each.remark}")
    return 0 if all(each.ok for each in outcomes) else 1


def run(cell: Cell, tests: Sequence[str]) -> Outcome:
    """Make the cell's environment if it is not there yet, and run the tests in it."""
    print(f"\n== Airflow {cell.airflow}, Python {cell.python} {cell.dependencies}", flush=True)
    began = time.monotonic()
    environment = dict(os.environ, AIRFLOW_HOME=str(REPOSITORY / f".airflow-{cell.name}"))
    try:
        python, inside = find_python(cell.python)
        install(cell, python, inside)
    except NotRunError as error:
        # As in the tests: what cannot run is left out on a developer's machine, and never in the CI.
        return Outcome(cell, ok=not os.environ.get("CI"), remark=f"not run: {error}")
    except FailedError as error:
        return Outcome(cell, ok=False, seconds=time.monotonic() - began, remark=f"FAILED: {error}")
    if inside:
        # There is no Chromium and no database server in there: their tests are skipped, unless this is the CI.
        environment.pop("CI", None)
    report = MATRIX / f"{cell.name}.xml"
    report.unlink(missing_ok=True)
    code = subprocess.run(  # noqa: S603 - a Python that this file has installed
        [*inside, MATRIX / cell.name / "bin/python", "-m", "pytest", "-n", "3", "--dist", "loadgroup",
         "--no-loadscope-reorder", "-p", "no:cacheprovider", f"--junit-xml={report}", *(tests or everything(cell))],
        cwd=REPOSITORY, env=environment, check=False,
    ).returncode  # fmt: skip
    return read_report(cell, report, code)


def everything(cell: Cell) -> list[str]:
    """Return pytest's arguments for all the tests of a cell; stores have a target and an environment of their own."""
    left_out = ["benchmarks", "distributed", "stores", *([] if cell.whole else ["chaos", "jobs"])]
    return [f"--ignore=tests/{folder}" for folder in left_out]


def read_report(cell: Cell, report: Path, code: int) -> Outcome:
    """Return what pytest has counted, and its exit code as the verdict."""
    if not report.is_file():
        return Outcome(cell, ok=False, remark=f"FAILED: pytest ended with {code} and no report")
    (suite,) = ElementTree.parse(report).getroot()  # noqa: S314 - written by our pytest
    total, failures, errors, skipped = (int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped"))
    return Outcome(
        cell,
        ok=code == 0,
        passed=total - failures - errors - skipped,
        failed=failures + errors,
        skipped=skipped,
        seconds=float(suite.attrib["time"]),
        remark="ok" if code == 0 else f"FAILED: pytest ended with {code}",
    )


def find_python(version: str) -> tuple[str, list[str]]:
    """Return a Python of this version, and the command that leads to where it is: none if this machine has it."""
    name = f"python{version}"
    for native in (sys.executable, shutil.which(name)):
        if native and output(native, "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == version:
            return native, []
    if version not in DEBIANS:
        raise NotRunError(f"{name} is not installed")
    if os.geteuid() != 0:
        raise NotRunError(f"{name} is not installed, and only root can run one from Debian")
    if missing := [each for each in ("debootstrap", "unshare", "mount", "apt-get") if not shutil.which(each)]:
        raise NotRunError(f"{name} is not installed, nor what fetches it from Debian: {', '.join(missing)}")
    # Where /bin and /lib are folders, they would not change with /usr.
    if not (Path("/bin").is_symlink() and Path("/lib").is_symlink()):
        raise NotRunError(f"{name} is not installed, and Debian's needs a merged /usr")
    usr = debian(DEBIANS[version]) / "usr"
    return f"/usr/bin/{name}", ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /usr && exec "$@"', str(usr)]


def debian(suite: str) -> Path:
    """Return the folder of a small Debian with its Python; it is fetched once, from where apt has this machine's."""
    root = MATRIX / "roots" / suite
    if root.is_dir():
        return root
    mirror = output("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Label: Debian")
    if not mirror:
        raise NotRunError("apt names no mirror of Debian")
    scripts = Path("/usr/share/debootstrap/scripts")
    # An older debootstrap has no script for a newer Debian; sid's is the same.
    script = scripts / (suite if (scripts / suite).exists() else "sid")
    print(f"Fetching Debian {suite}, some 280 MB; this is done once ...", flush=True)
    unfinished = root.with_name(f"{suite}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    # In its own namespace, so that the /proc which debootstrap mounts in there is gone when it ends.
    fetch = ["unshare", "--mount", "debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
    with (MATRIX / f"{suite}.log").open("w") as log:
        command: list[str | Path] = [*fetch, suite, unfinished, mirror.split()[0], script]
        done = subprocess.run(command, stdout=log, check=False)  # noqa: S603 - the mirror is apt's own
    if done.returncode:
        raise NotRunError(f"debootstrap ended with {done.returncode}: see {log.name}")
    return unfinished.rename(root)


def output(*command: str) -> str:
    """Return what a command prints, or nothing if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - commands of this file
    return done.stdout.strip()


def install(cell: Cell, python: str, inside: list[str]) -> None:
    """Make the cell's environment, if it is not what its dates and pyproject.toml ask for."""
    home = MATRIX / cell.name
    dates: list[str] = []
    if cell.dependencies != "newest":
        dates = ["--exclude-newer", DATES[cell.airflow]]
        dates += [word for each in NEWER for word in ("--exclude-newer-package", f"{each}={DATES['3.3.2']}")]
    wanted = f"apache-airflow=={cell.airflow}"
    packages = [wanted, "-e", ".[dev,sandbox]"]
    commands: list[list[str | Path]] = [["venv", "--allow-existing", "--python", python, home]]
    if cell.dependencies == "lowest":
        # Only what users install: the tests' own tools stay as new as the date.
        extras = [word for extra in ("sandbox", "excel", "parquet") for word in ("--extra", extra)]
        lowest = ["--resolution", "lowest-direct", "--upgrade", "--output-file", str(home / "lowest.txt")]
        commands.append(["pip", "compile", "--python", home / "bin/python", *lowest, *dates, *extras, "pyproject.toml"])
        packages += ["-c", str(home / "lowest.txt")]
    commands.append(["pip", "install", "--python", home / "bin/python", *dates, *packages])
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = hashlib.sha256(repr((commands, project)).encode()).hexdigest()
    stamp = home / ".installed"
    if stamp.is_file() and stamp.read_text() == asked:
        return
    for command in commands:
        done = subprocess.run([*inside, UV, "--quiet", *command], cwd=REPOSITORY, check=False)  # noqa: S603 - made here
        if done.returncode:
            raise FailedError("its environment cannot be made")
    stamp.write_text(asked)


if __name__ == "__main__":
    sys.exit(main())
