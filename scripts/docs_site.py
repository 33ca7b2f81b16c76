"""What `make docs` does beside mkdocs: README, CHANGELOG and CONTRIBUTING become pages, and every link is checked.

mkdocs checks the links between pages. Links to other files of the repository are checked here and lead to GitHub. At
the end, no page may load anything from another host.
"""

from __future__ import annotations

import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from griffe import Extension
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FILE_OF = {page: file for file, page in PAGES.items()}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")
LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}
NOT_LOADED = {"canonical", "next", "prev"}  # kinds of <link> that only name a page


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from files of the repository's root."""
    for file, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / file).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Lead links to files that are no pages to GitHub, and links to README and the like to their pages."""
    name = page.file.src_uri
    folder = posixpath.dirname(FILE_OF.get(name, f"docs/{name}"))

    def lead(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        if not (ROOT / target).exists():
            raise PluginError(f"{name}: link to {link[1]}, which does not exist")
        if target.startswith("docs/"):
            inside = target.removeprefix("docs/")
        elif target in PAGES:
            inside = PAGES[target]
        else:
            kind = "tree" if (ROOT / target).is_dir() else "blob"
            return f"{config.extra['repository']}/{kind}/main/{target}"
        return posixpath.relpath(inside, posixpath.dirname(name))

    return LINK.sub(lead, markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Make links of the pages that docstrings name, and drop what mkdocstrings does not know of Sphinx's."""
    if not page.file.src_uri.startswith("reference/"):
        return html
    html = re.sub(r":(?:attr|class|func|meth):(?=<code>)|<p>::</p>", "", html)
    return re.sub(r"\bdocs/([a-z-]+)\.md\b", r'<a href="../\1.html">\1</a>', html)


def on_post_build(config: Any) -> None:
    """Refuse a site that loads anything from another host."""
    for path in sorted(Path(config.site_dir).rglob("*.html")):
        page = _Loads()
        page.feed(path.read_text())
        if page.found:
            raise PluginError(f"{path.relative_to(config.site_dir)} loads from another host: {', '.join(page.found)}")
    for path in sorted(Path(config.site_dir).rglob("*.css")):
        if found := re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]+", path.read_text()):
            raise PluginError(f"{path.relative_to(config.site_dir)} loads from another host: {', '.join(found)}")


class ParameterLists(Extension):  # type: ignore[misc]
    """Splits `:param a, b: text` of our docstrings, which griffe does not know, into a line for each parameter."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *):param ([\w\s]+(?:,[\w\s]+)+):\s+((?:.+\n?)(?:^\1 +.*\n?)*)",
                _each,
                obj.docstring.value,
                flags=re.MULTILINE,
            )


def _each(several: re.Match[str]) -> str:
    names = [name.strip() for name in several[2].split(",")]
    return "".join(f"{several[1]}:param {name}: {several[3].rstrip()}\n" for name in names)


class _Loads(HTMLParser):
    """Finds what a page loads from other hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        address = given.get(LOADS.get(tag, "")) or ""
        if re.match(r"(https?:)?//", address) and given.get("rel") not in NOT_LOADED:
            self.found.append(address)
