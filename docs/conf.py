"""The documentation site: `make docs` builds it offline, warnings are errors."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from sphinx.application import Sphinx  # noqa: E402

import streamlearn  # noqa: E402  # the editable install, as the tests have it
from benchmarks import figures, suite  # noqa: E402

project = "streamlearn"
author = "streamlearn contributors"
copyright = author  # Sphinx reads this name
release = version = streamlearn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "docstrings", "generated", "mathml"]
exclude_patterns = ["_ext", "_static"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
html_math_renderer = "mathml"
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"streamlearn {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("F8", "I8", "U1", "B1", "Columns", "Names", "Json")}
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

nitpicky = True
_OTHERS = r"(numpy|np|river|base|pyarrow|pa|pydantic|pandas|pd|sklearn|collections|pathlib)\b.*"
_ALIASES = r"(F8|I8|U1|B1|NDArray|Json|Columns|Positions|Names|Assignments|Shown|Rows?)"
_PYDANTIC = r"(FieldInfo|MinLen|NoneType)"
nitpick_ignore_regex = [  # no inventory of other projects is fetched: the site is built offline
    ("py:.*", _OTHERS),
    ("py:.*", r"(typing|os|abc|datetime|types)\..*"),
    ("py:class", _ALIASES),
    ("py:class", _PYDANTIC),
]


def setup(app: Sphinx) -> None:
    """The plots of what `make bench` has kept are a page beside the others."""
    app.connect("build-finished", _draw)


def _draw(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        figures.write(suite.load(), Path(app.outdir) / "plots.html")
