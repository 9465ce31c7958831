"""Disks that are read-only, and files that may not grow: one line, and what was there stays. The benchmark `kills` does
this to all commands, and kills them.
"""

import os
import subprocess

import pytest

from helpers.commands import TINY, assert_refused

pytestmark = pytest.mark.usefixtures("empty_folder")
CLASSIFIER = ["--widths", "4", "--batch-size", "8", "--until", "2 steps", "--quiet"]


def words(command, photos, classified, out):
    return {
        "train": ["train", photos, "--until", "2 steps", "--quiet", *TINY, "--out", out],
        "harden": ["harden", photos, *CLASSIFIER, "--eps", "0.1", "--out", out],
        "attack": ["attack", classified, photos, "--attack", "fgsm", "--no-alarms", "-n", "4", "--quiet", "--out", out],
        "data pack": ["data", "pack", photos, out / "photos.zip"],
        "report": ["report", classified, "--out", out / "report.html"],
    }[command]


COMMANDS = ["train", "harden", "attack", "data pack", "report"]


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != "data pack"])  # that notes its cache first
def test_a_file_that_grows_beyond_the_limit_is_refused_in_one_line(run_rivals, photos, classified, tmp_path, command):
    resource = pytest.importorskip("resource")
    line, out = words(command, photos, classified, tmp_path / "out"), tmp_path / "out"
    before = {path: path.read_bytes() for path in classified.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))  # as ulimit -f does
    try:
        result = run_rivals(*line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_refused(result, "cannot write", "larger than the limit (ulimit -f)")
    assert before == {path: path.read_bytes() for path in classified.rglob("*") if path.is_file()}
    assert not any(path.suffix == ".html" for path in out.rglob("*"))


@pytest.fixture
def read_only_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name != "posix" or os.geteuid() or subprocess.call(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", disk]):
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk_is_told_in_one_line(run_rivals, photos, classified, read_only_disk, command):
    line = words(command, photos, classified, read_only_disk / "out")
    assert_refused(run_rivals(*line), "cannot write", "the file system is read-only")
