"""The pictures of the documentation: all that are shown are there, and all that are there are shown."""

from __future__ import annotations

import re

from tests.docs.pages import PAGES, ROOT


def test_pictures():
    shown = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)]+\.(?:png|svg))\)", page.read_text(encoding="utf-8"))
    }
    there = {path for path in (ROOT / "docs").rglob("*") if path.suffix in (".png", ".svg")}
    assert sorted(shown ^ there) == []
