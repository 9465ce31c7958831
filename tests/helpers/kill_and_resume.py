"""A run that is killed and resumed ends as one that is not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from helpers.commands import CommandProcess, call_main


def timeless_records(run: Path) -> list[dict[str, object]]:
    """The records of a run without what a clock says."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if "second" not in key} for line in lines]


@contextlib.contextmanager
def goes_on(run: Path) -> Iterator[None]:
    """Within it a run is resumed, from its last checkpoint.

    What is reproducible ends the same from the very beginning, too. But then records before the checkpoint would have
    other times.
    """
    log, checkpoints = run / "metrics.jsonl", (run / "checkpoints").glob("*.safetensors")
    step = max(int(path.stem.removesuffix("-end")) for path in checkpoints)
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    kept = "".join(line for line in lines if json.loads(line)["step"] < step)
    assert kept
    yield
    assert log.read_text().startswith(kept)


def assert_killed_run_resumes(words: list[str], *, home: Path, weights: str, resume: tuple[str, ...] = ()) -> None:
    """Run ``rivals WORDS`` once to its end, once killed by SIGKILL after a checkpoint and resumed; compare the bytes.

    ``weights`` is the file of the network, ``resume`` what is said again at the resumption.
    """
    whole, killed = home / "whole", home / "killed"
    assert call_main((*words, "--out", whole)) == 0
    process = CommandProcess(*words, "--out", killed, out=home / "streams")
    process.wait_until(lambda: list((killed / "checkpoints").glob("*[1-9]*.safetensors")))
    process.kill()
    assert json.loads((killed / "run.json").read_text())["state"] == "running"
    with goes_on(killed):
        assert call_main((words[0], "--resume", "--out", killed, *resume, "--quiet")) == 0
    assert (whole / weights).read_bytes() == (killed / weights).read_bytes()
    assert timeless_records(whole) == timeless_records(killed)
