"""How Sphinx builds the site; `python docs/build.py` builds it in every language."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tasks"), str(DOCS / "extensions")]

project = "unrolled"
extensions = [
    "myst_parser",  # pages are Markdown, which GitHub shows, too
    "sphinx.ext.autodoc",  # the reference comes from docstrings,
    "sphinx.ext.napoleon",  # in Google's style
    "mathml",  # these three are in docs/extensions
    "repository",
    "public_names",
]
exclude_patterns = ["_build", "locale", "guide/data"]  # output, translations and measured data are no pages
language = "en"

# A page is Markdown; a heading of a page can be linked to, as on GitHub.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist", "html_image"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # the README of a task is a page, whatever level its headings begin at

# Docstrings are Google's style; single backticks in them are code. They say types and shapes themselves.
default_role = "code"
autodoc_member_order = "bysource"  # which begins with what matters most
autodoc_typehints = "none"  # the docstrings have types and shapes
autodoc_inherit_docstrings = False  # a method that a class only overrides is described once, in its base
autodoc_default_options = {"members": True, "show-inheritance": True}  # what it inherits stands in its base
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Class attributes", "params_style")]

# Translation: one catalogue a page, without line numbers, so that only a changed sentence changes it.
locale_dirs = ["locale"]
gettext_compact = False
gettext_location = False

templates_path = ["templates"]
html_theme = "furo"
html_title = "unrolled"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "languages.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_theme_options = {"sidebar_hide_name": False}
html_context = {"languages": {"en": "English", "ko": "한국어"}}
