"""The pages of the documentation and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*(ROOT / "docs").rglob("*.md"), *(ROOT / f"{each}.md" for each in ("README", "CONTRIBUTING", "CHANGELOG"))]
)


class Block(NamedTuple):
    """A block of code, with the line of its page where it begins; `language` is empty where none is given."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def dag_id(self) -> str | None:
        """The id of the DAG, if the block is a file with one."""
        found = re.search(r'^with DAG\(\s*"(\w+)"', self.text, re.MULTILINE) if self.language == "python" else None
        return found[1] if found else None


def read_blocks() -> list[Block]:
    """Return all blocks of all pages, indented ones too."""
    parser = MarkdownIt("commonmark").enable("table")
    return [
        Block(str(page.relative_to(ROOT)), token.map[0] + 1, token.info, token.content)
        for page in PAGES
        for token in parser.parse(page.read_text(encoding="utf-8"))
        if token.type in ("fence", "code_block") and token.map
    ]


BLOCKS = read_blocks()
DAGS = {block.dag_id: block for block in BLOCKS if block.dag_id}


def write_dags(folder: Path, data: Path) -> None:
    """Write each DAG to a file, with a folder in place of /data. The watcher polls more often and looks back."""
    for dag_id, block in DAGS.items():
        text = block.text.replace('"/data', f'"{data}')
        text = text.replace('statuses=["completed"]', 'statuses=["completed"], poll_interval=2, look_back=600')
        (folder / f"{dag_id}.py").write_text(text, encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.page == page and block.language in languages]
