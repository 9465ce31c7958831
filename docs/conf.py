"""Configuration of Sphinx for ``make docs``.

The pages are plain Markdown that reads well in the repository. Three things are inserted during the build, so that
they never lag behind the code: the menu, from the links of ``index.md``; docstrings, under
``<!-- reference: MODULES -->``; the help of every command, under ``<!-- commands -->``.
"""

import contextlib
import importlib
import inspect
import io
import os
import re
from types import ModuleType

import rivals
from rivals.cli.commands import COMMANDS
from rivals.cli.main import main

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
suppress_warnings = ["myst.header"]  # titles of decisions are numbered, so they differ from their file names

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
    """A table of contents for each section of the index, with the pages it links to."""
    found = []
    for section in index.split("\n## ")[1:]:
        caption, _, text = section.partition("\n")
        pages = dict.fromkeys(LINK.findall(text))
        found.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]))
    return "\n\n".join(found)


def reference(names: str) -> str:
    """Directives for every public name of some modules."""
    return "\n\n".join(module_directives(importlib.import_module(name.strip())) for name in names.split(","))


def module_directives(module: ModuleType) -> str:
    """A heading and directives for one module and its public names."""
    lines = [f".. automodule:: {module.__name__}"]
    documented_elsewhere = []
    if not hasattr(module, "__all__"):
        lines.append("   :members:")
    for name in public_names(module):
        member = getattr(module, name)
        origin = getattr(member, "__module__", "")
        if inspect.ismodule(member):
            continue
        if module is rivals and not origin.startswith(
            ("rivals.api", "rivals.base", "rivals.recipes", "rivals.reports")
        ):
            documented_elsewhere.append(f"- ``rivals.{name}`` of ``{rivals._HOME[name][0]}``")
        elif inspect.isclass(member):
            lines += ["", f".. autoclass:: {module.__name__}.{name}", "   :members:"]
        elif inspect.isfunction(member):
            lines += ["", f".. autofunction:: {module.__name__}.{name}"]
    if documented_elsewhere:
        lines += ["", "The others are documented with their modules:", "", *documented_elsewhere]
    return "\n".join([f"## `{module.__name__}`", "", "```{eval-rst}", *lines, "```"])


def public_names(module: ModuleType) -> list[str]:
    """The public names of a package, in its order; empty for a module, whose members autodoc lists."""
    return list(getattr(module, "_HOME", None) or getattr(module, "__all__", []))


def commands() -> str:
    """The help of every command, as printed."""
    os.environ["COLUMNS"] = "88"
    parts = []
    for name, command in COMMANDS.items():
        parts += [f"## `rivals {name}`", "", f"{command.summary[0].upper()}{command.summary[1:]}.", ""]
        parts += ["```text", help_of(name.split()), "```", ""]
    return "\n".join(parts)


def help_of(words: list[str]) -> str:
    """What ``rivals WORDS --help`` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())


def complete(_app: object, page: str, source: list[str]) -> None:
    """Insert into a page what is made from code."""
    text = source[0]
    if page == root_doc:
        text += "\n\n" + menu(text)
    text = re.sub(r"<!-- reference: (.*?) -->", lambda found: reference(found[1]), text)
    source[0] = text.replace("<!-- commands -->", commands()) if "<!-- commands -->" in text else text


def setup(app) -> None:
    app.connect("source-read", complete)
