"""Leads read and checked in a process of their own: CPU time, memory at most, and the same of email_validator alone.

Usage: ``python -m tests.benchmarks.leads_client SOURCE COUNT``, where SOURCE is a file of leads, or ``list`` for a list
of objects as a DAG hands it on; its last line is JSON.
"""

from __future__ import annotations

import csv
import ctypes
import gc
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from email_validator import validate_email

from machfive_provider.leads.prepare import PreparedLeads, prepare, read_leads
from tests.benchmarks.export_client import memory

COLUMNS = ("Email", "First Name", "Last Name", "Company", "Job Title", "Website")
COMPANIES, TITLES = 20_000, 60
SYLLABLES = ("an", "ber", "cor", "dal", "el", "fin", "gra", "hol", "is", "jo", "ka", "lin", "mor", "na", "ost", "per")


def people(count: int) -> Iterator[tuple[str, ...]]:
    """Yield as many different people, ten at a company."""
    names = itertools.product(*[SYLLABLES] * 5)
    for number, parts in enumerate(itertools.islice(names, count)):
        first, last, company = "".join(parts[3:]), "".join(parts[:3]), number % COMPANIES
        domain = f"company{company}.com"
        title = f"Head of Department {number % TITLES}"
        yield f"{first}.{last}@{domain}", first.title(), last.title(), f"Company {company}", title, f"https://{domain}"


def write(path: Path, count: int) -> None:
    """Write a file of leads: CSV, or JSON Lines."""
    with path.open("w", newline="") as file:
        if path.suffix == ".csv":
            csv.writer(file).writerows([COLUMNS, *people(count)])
        else:
            file.writelines(f"{json.dumps(each)}\n" for each in objects(count))


def objects(count: int) -> list[dict[str, str]]:
    """Return leads as a task hands them on."""
    return [dict(zip(COLUMNS, each, strict=True)) for each in people(count)]


def prepared(leads: Any, path: str | None) -> PreparedLeads:
    """Do what the operator does with them."""
    return prepare(read_leads(leads, path))


def measured(source: str, count: int) -> dict[str, float]:
    """Read and check them once, after a few of the same kind, for which everything is imported."""
    warm_up = Path(source).with_stem("warm-up") if source != "list" else None
    if warm_up is not None:
        write(warm_up, 100)
    prepared(None if warm_up else objects(100), str(warm_up) if warm_up else None)
    leads, path = (objects(count), None) if source == "list" else (None, source)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    idle = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    began = time.process_time()
    ready = prepared(leads, path)
    cpu = time.process_time() - began
    above_idle = memory("VmHWM") - idle
    if len(ready.leads) != count:
        raise RuntimeError(f"{len(ready.leads)} of {count} leads")
    addresses = [lead.email for lead in ready.leads]
    began = time.process_time()
    same = [validate_email(each, check_deliverability=False).normalized for each in addresses] == addresses
    library = time.process_time() - began
    if not same:
        raise RuntimeError("email_validator normalises them otherwise")
    return {"cpu": cpu, "above_idle": above_idle, "library": library}


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))))
