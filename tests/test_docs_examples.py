"""Every Python example of README and the docs runs, page by page, with one namespace a page.

A ```python block is executed, a ```pycon block (or one that starts with >>>) is a doctest, and
`<!-- skip: next -->` before a block says, for all to see, that it is not run. What a reader need
not see goes into `<!-- invisible-code-block: python ... -->`. A page may start
`ratekit.testing.ApiServer`, and finds a real memcached as `memcached`.
"""

import doctest
import os
import re
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pytest
from sybil import Document, Region, Sybil
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parent.parent
PAGES = {
    str(page.relative_to(ROOT)): page
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    if page.parent.name != "changelog.d"
}
# What stands behind the fence that opens a block.
INFO = re.compile(r"(?:`{3,}|~{3,})[ \t]*(\S.*)")


def parse_pycon(document: Document) -> Iterable[Region]:
    """Yield every prompt of every ```pycon block, as a doctest."""
    prompts = DocTestStringParser(DocTestEvaluator(doctest.ELLIPSIS))
    for block in CodeBlockParser("pycon", lambda _: None)(document):
        for region in prompts(block.parsed, document.path):
            region.adjust(block, block.parsed)
            yield region


EXAMPLES = Sybil(
    [PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS), parse_pycon, SkipParser()],
    pattern="*.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_every_example_of_a_page_runs(
    page: str, memcached: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examples of a page run from its first to its last, each seeing what those before left."""
    document = EXAMPLES.parse(PAGES[page])
    document.namespace["memcached"] = memcached
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ):
        for example in document:
            example.evaluate()


@pytest.mark.parametrize("page", PAGES)
def test_no_python_block_hides_behind_another_name(page: str) -> None:
    """A block marked py, python3 or {code-block} python would look right and never run."""
    marks = {mark.strip() for mark in INFO.findall(PAGES[page].read_text())}
    assert {mark for mark in marks if "py" in mark.lower()} <= {"python", "pycon"}
