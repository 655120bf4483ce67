"""How Sphinx builds these pages."""

from importlib.metadata import version as version_of

project = "ratekit"
author = "The ratekit developers"
copyright = f"2026, {author}"  # noqa: A001 (Sphinx chose the name)
release = version = version_of("ratekit")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
# One backtick in a docstring is code, as it is in these pages.
default_role = "code"
# News fragments become a page when a release collects them.
exclude_patterns = ["changelog.d"]
html_theme = "furo"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
myst_heading_anchors = 3
