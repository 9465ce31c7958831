"""Runs the notebooks and stores their outputs: ``make notebooks``, or ``make notebooks ONLY=3`` for some of them.

The sources are Python files in jupytext's percent format, ``en/N-name.py`` and, with the same code and Chinese text,
``zh/N-name.py``. It is run once, and both get its outputs: ``N-name.ipynb`` next to each. The outputs do not show
when, where or in how much time they were made.
"""

from __future__ import annotations

import base64
import io
import os
import re
import resource
import sys
import tempfile
from pathlib import Path

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
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    path = HERE / language / f"{name}.ipynb"
    path.write_text(text, encoding="utf-8")
    if len(text) > MOST:
        sys.exit(f"{language}/{name}.ipynb has {len(text):,} bytes, {MOST:,} are allowed: show fewer or smaller images")
    return path


def main(only: str = "") -> None:
    """Make the notebooks whose numbers are in ``only``, or all."""
    chosen = names(only)
    for name in chosen:
        first, *others = (code(read(language, name)) for language in LANGUAGES)
        if any(other != first for other in others):
            sys.exit(f"{name}: the code cells of {' and '.join(LANGUAGES)} differ: make them the same")
    for name in chosen:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        notebook = read(LANGUAGES[0], name)
        run(notebook)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        sizes = [write(language, name, notebook).stat().st_size for language in LANGUAGES]
        print(f"{name}: {seconds:.0f} processor seconds, {max(sizes):,} bytes", flush=True)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
