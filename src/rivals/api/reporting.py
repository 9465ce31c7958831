"""``report``: the HTML report of runs."""

from __future__ import annotations

from pathlib import Path

from rivals.base.errors import UserError
from rivals.base.files import make_folder
from rivals.base.run_folder import Run


def report(*runs: str | Path, out: str | Path | None = None) -> Path:
    """Write the HTML report of one run, or of several side by side.

    Args:
        *runs: Run folders.
        out: File of the report; by default report.html in the run, or in the working folder for several runs.

    Returns:
        The report's path.

    Raises:
        UserError: no run is named, or what is named is not a run; or the file exists, cannot be written or does not
            end in .html.
    """
    from rivals.reports.report import write_report

    if not runs:
        raise UserError("no run was named: give one or more run folders, as in 'rivals report runs/demo-1'")
    opened = [Run.open(run) for run in runs]
    if out is None and len(opened) == 1:
        return write_report(opened, opened[0].report)
    page = Path(out or "report.html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"cannot write '{page}': the report is a web page, so give a name that ends in .html")
    if page.exists():
        raise UserError(f"'{page}' exists already: remove it or choose another --out")
    make_folder(page.parent, parents=True)
    return write_report(opened, page)
