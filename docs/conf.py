"""How Sphinx makes the site: ``make docs``.

The pages are plain Markdown that reads well where it lies. Three things are added while the site is built, so that they
can never lag behind: the menu, which follows the links of ``index.md``; under ``<!-- reference: MODULES -->`` the
docstrings of these modules; under ``<!-- commands -->`` the help of every verb.
"""

import contextlib
import importlib
import inspect
import io
import os
import re
from types import ModuleType

import rivals
from rivals import cli

project = "Rivals"
author = "The authors of Rivals"
release = version = rivals.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"

html_theme = "furo"
html_title = f"Rivals {version}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False

myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # the decisions' titles are numbered, and so are not the same as their files' names

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
add_module_names = False

LINK = re.compile(r"\]\(([\w./-]+)\.md\)")


def menu(index: str) -> str:
    """A table of contents for each section of the index, of the pages it links to."""
    found = []
    for section in index.split("\n## ")[1:]:
        caption, _, text = section.partition("\n")
        pages = dict.fromkeys(LINK.findall(text))
        found.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n".join(found)


def reference(names: str) -> str:
    """Every public name of some modules, one module after the other."""
    return "\n\n".join(described(importlib.import_module(name.strip())) for name in names.split(","))


def described(module: ModuleType) -> str:
    """The heading of a module, its docstring, and the docstrings of its names."""
    lines = [f".. automodule:: {module.__name__}"]
    elsewhere = []
    if not hasattr(module, "__all__"):
        lines.append("   :members:")
    for name in listed(module):
        thing = getattr(module, name)
        home = getattr(thing, "__module__", "")
        if inspect.ismodule(thing):
            continue
        if module is rivals and not home.startswith(("rivals.api", "rivals.base", "rivals.recipes", "rivals.reports")):
            elsewhere.append(f"- ``rivals.{name}`` of ``{rivals._HOME[name][0]}``")
        elif inspect.isclass(thing):
            lines += ["", f".. autoclass:: {module.__name__}.{name}", "   :members:"]
        elif inspect.isfunction(thing):
            lines += ["", f".. autofunction:: {module.__name__}.{name}"]
    if elsewhere:
        lines += ["", "The rest are told of with the modules they come from:", "", *elsewhere]
    return "\n".join([f"## `{module.__name__}`", "", "```{eval-rst}", *lines, "```"])


def listed(module: ModuleType) -> list[str]:
    """What a package offers, in the order in which it says so; nothing of a plain module, whose members follow."""
    return list(getattr(module, "_HOME", None) or getattr(module, "__all__", []))


def commands() -> str:
    """The help of every verb, as it would be printed."""
    os.environ["COLUMNS"] = "88"
    parts = []
    for verb, says in cli.VERBS.items():
        kinds = {"data": [["data", "ls"], ["data", "pack"]], "score": [["score"], ["score", "--equilibrium"]]}
        for words in kinds.get(verb, [[verb]]):
            parts += [f"## `rivals {' '.join(words)}`", "", f"{says[0].upper()}{says[1:]}.", ""]
            parts += ["```text", help_of(words), "```", ""]
    return "\n".join(parts)


def help_of(words: list[str]) -> str:
    """What ``rivals WORDS --help`` prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        cli.main([*words, "--help"])
    return "\n".join(line.rstrip() for line in said.getvalue().splitlines())


def complete(_app: object, page: str, source: list[str]) -> None:
    """Adds to a page's text what is made from code."""
    text = source[0]
    if page == root_doc:
        text += "\n\n" + menu(text)
    text = re.sub(r"<!-- reference: (.*?) -->", lambda found: reference(found[1]), text)
    source[0] = text.replace("<!-- commands -->", commands()) if "<!-- commands -->" in text else text


def setup(app) -> None:
    app.connect("source-read", complete)
