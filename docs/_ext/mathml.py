"""Formulas as MathML, which browsers draw themselves: no script and no font is fetched."""

from docutils.nodes import math, math_block
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator


def inline(translator: HTML5Translator, node: math) -> None:
    """A formula in the text."""
    translator.body.append(tex2mathml(node.astext(), as_block=False))


def block(translator: HTML5Translator, node: math_block) -> None:
    """A formula on lines of its own."""
    translator.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')


def nothing(translator: HTML5Translator, node: object) -> None:
    """All was said on the way in; Sphinx wants to be told."""


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (inline, nothing), (block, nothing))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
