"""Runs the notebooks and stores their outputs: ``make notebooks``, or ``make notebooks ONLY=3`` for some of them.

``python notebooks/make.py --stored`` does not run them: it writes them anew with the outputs that they have, as after a
change of their text. Their code must be as it was.

The sources are Python files in jupytext's percent format, ``en/N-name.py`` and, with the same code and Chinese text,
``zh/N-name.py``. It is run once, and both get its outputs: ``N-name.ipynb`` next to each. The outputs do not show
when, where or in how much time they were made.

Before the cells of the source each notebook has one that installs Rivals where it is missing, as in Colab, and does
nothing elsewhere; and, if ``pyproject.toml`` names a repository on GitHub, a badge that opens it in Colab. These are
made here and not run.
"""

from __future__ import annotations

import base64
import io
import os
import re
import resource
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

HERE = Path(__file__).resolve().parent
LANGUAGES = ("en", "zh")
MOST = 1_500_000  # bytes of a notebook with its images: small enough for a browser and a repository
LARGE = 100_000  # bytes of an image as PNG, above which it is noise or a photograph, and smaller as JPEG
ABSOLUTE = re.compile(
    r"(?<![\w.:/~<])/(?:bin|data|etc|home|mnt|opt|private|root|srv|tmp|usr|var|work|Users)/[^\s'\",)]*"
)


# Where the package comes from, if its repository is not known: a wheel beside the notebook. Not its name alone, under
# which an index may have another package.
FROM_WHEEL = """\
    from pathlib import Path

    wheel = next(iter(Path().glob("rivals-*.whl")), None)
    assert wheel, "upload the wheel of Rivals beside this notebook: pip wheel --no-deps . makes it in a checkout"
    %pip install --quiet "{wheel}[demo]"
"""
FROM_REPOSITORY = """\
    %pip install --quiet "rivals[demo] @ git+REPOSITORY"
"""
SETUP = """\
# Installs Rivals where it is missing, as in Colab; elsewhere this does nothing.
import importlib.util

if importlib.util.find_spec("rivals") is None:
"""
BADGE = "[![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/"


def repository(project: dict[str, Any]) -> str:
    """The address of the repository in ``pyproject.toml``; empty if it names none."""
    urls = {name.lower(): str(url) for name, url in project.get("urls", {}).items()}
    found = next((urls[name] for name in ("repository", "source", "source code", "github") if name in urls), "")
    return found.rstrip("/").removesuffix(".git")


def setup_cells(language: str, name: str) -> list[NotebookNode]:
    """The cells before those of the source: a badge, if there is an address, and the one that installs."""
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    address = repository(project)
    source = FROM_REPOSITORY.replace("REPOSITORY", address) if address else FROM_WHEEL
    cells = [nbformat.v4.new_code_cell((SETUP + source).rstrip(), id="setup")]
    owner = address.removeprefix("https://github.com/")
    if owner != address:
        link = f"{BADGE}{owner}/blob/main/notebooks/{language}/{name}.ipynb)"
        cells.insert(0, nbformat.v4.new_markdown_cell(link, id="badge"))
    return cells


def names(only: str = "") -> list[str]:
    """The notebooks without their suffix, in order; only those whose numbers are in ``only``, as in ``1,3``."""
    found = sorted(path.stem for path in (HERE / "en").glob("*.py"))
    wanted = [number for number in re.split(r"[,\s]+", only) if number]
    unknown = [number for number in wanted if not any(name.startswith(f"{number}-") for name in found)]
    if unknown:
        sys.exit(f"there is no notebook {unknown[0]}: take some of {', '.join(name.split('-')[0] for name in found)}")
    return [name for name in found if not wanted or name.split("-")[0] in wanted]


def read(language: str, name: str) -> NotebookNode:
    """A source as a notebook without outputs, its cells numbered."""
    notebook = jupytext.read(HERE / language / f"{name}.py", fmt="py:percent")
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for place, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{place}", nbformat.from_dict({})
    return notebook


def code(notebook: NotebookNode) -> list[str | None]:
    """The text of each code cell; None for a text cell, so that both languages must have the same order of cells."""
    return [cell.source if cell.cell_type == "code" else None for cell in notebook.cells]


def run(notebook: NotebookNode) -> None:
    """Run the code in an empty folder, and remove paths of this machine from the outputs."""
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],
        ).execute(env=os.environ | {"TMPDIR": folder})  # where they make the folders of their runs
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = ABSOLUTE.sub(shortened, output.text)
            for kind, value in output.get("data", {}).items():
                if kind.startswith("text/") and isinstance(value, str):
                    output.data[kind] = ABSOLUTE.sub(shortened, value)
            if "image/png" in output.get("data", {}):
                output.data.pop("image/jpeg", None)  # Pillow images come in both formats
                if len(output.data["image/png"]) > LARGE:
                    output.data["image/jpeg"] = as_jpeg(output.data.pop("image/png"))


def shortened(path: re.Match[str]) -> str:
    """The last part of a path, the only one that means something elsewhere."""
    return path[0].rstrip("/").rpartition("/")[2]


def as_jpeg(png: str) -> str:
    """An image in base64, encoded as JPEG."""
    packed = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").save(packed, "JPEG", quality=90, subsampling=0)
    return base64.b64encode(packed.getvalue()).decode()


def write(language: str, name: str, made: NotebookNode) -> Path:
    """Write a language's notebook with the outputs of the one that was run."""
    notebook = read(language, name)
    for cell, other in zip(notebook.cells, made.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = other.outputs, other.execution_count
    notebook.cells[:0] = setup_cells(language, name)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    path = HERE / language / f"{name}.ipynb"
    path.write_text(text, encoding="utf-8")
    if len(text) > MOST:
        sys.exit(f"{language}/{name}.ipynb has {len(text):,} bytes, {MOST:,} are allowed: show fewer or smaller images")
    return path


def stored(name: str) -> NotebookNode:
    """A finished notebook, without the cells that are not in its source."""
    path = HERE / LANGUAGES[0] / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.id not in ("badge", "setup")]
    if code(notebook) != code(read(LANGUAGES[0], name)):
        sys.exit(f"{name}: the code is not that of {path.name}: run it, by make notebooks ONLY={name.split('-')[0]}")
    return notebook


def main(only: str = "", *, run_them: bool = True) -> None:
    """Make the notebooks whose numbers are in ``only``, or all; with the outputs that they have unless ``run_them``."""
    chosen = names(only)
    for name in chosen:
        first, *others = (code(read(language, name)) for language in LANGUAGES)
        if any(other != first for other in others):
            sys.exit(f"{name}: the code cells of {' and '.join(LANGUAGES)} differ: make them the same")
    if not run_them:
        for name in chosen:
            notebook = stored(name)
            for language in LANGUAGES:
                write(language, name, notebook)
        return
    for name in chosen:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        notebook = read(LANGUAGES[0], name)
        run(notebook)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        sizes = [write(language, name, notebook).stat().st_size for language in LANGUAGES]
        print(f"{name}: {seconds:.0f} processor seconds, {max(sizes):,} bytes", flush=True)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--stored"]
    main(" ".join(words), run_them="--stored" not in sys.argv)
