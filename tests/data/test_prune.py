"""The cache in a place of one's own, and pruning it."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.commands import assert_refused
from rivals.base.size import Size
from rivals.data import decode_cache
from rivals.data.cache_folder import exclusive
from rivals.data.load import load


@pytest.fixture(autouse=True)
def sets(empty_folder, monkeypatch):
    """Two decoded sets, one not used for ten days, and what a killed decoding left."""
    monkeypatch.setenv("RIVALS_CACHE", "place")
    for number, name in enumerate(("new", "old")):
        Path(name).mkdir()
        pixels = np.full((64, 64), number, np.uint8)
        Image.fromarray(pixels).save(f"{name}/a.png")
        load(f"./{name}")
    (old,) = (each for each in Path("place/decoded").iterdir() if "old" in (each / "about.json").read_text())
    partial = Path("place/decoded/.0123456789abcdef01234567")
    partial.mkdir()
    (partial / "images.u8").write_bytes(bytes(100))
    Path("place/decoded/mine.txt").write_text("not ours")
    for path, days in ((old, 10), (partial / "images.u8", 3), (partial, 3)):
        os.utime(path, (time.time() - days * 86400,) * 2)
    return old


def states(result):
    assert result.status == 0, result.err
    *rows, total = json.loads(result.out)
    return {(row["kind"], row["source"]): row["state"] for row in rows}, total


OLD, NEW, UNFINISHED = ("decoded images", "'old'"), ("decoded images", "'new'"), ("unfinished", "")


def test_what_is_in_the_cache_is_listed_and_nothing_is_removed(run_rivals, sets):
    found, total = states(run_rivals("data", "prune", "--json"))
    assert found == {OLD: "kept", NEW: "kept", UNFINISHED: "kept"}
    assert total["megabytes"] == 0.0 and total["source"].endswith("place")
    assert "decoded images  'old'" in run_rivals("data", "prune").out
    assert sets.exists()


def test_what_was_of_no_use_for_some_days_is_removed(run_rivals, sets):
    words = ("data", "prune", "--days", 5, "--json")
    assert states(run_rivals(*words, "--dry-run"))[0] == {OLD: "would be removed", NEW: "kept", UNFINISHED: "kept"}
    assert sets.exists()
    assert states(run_rivals(*words))[0] == {OLD: "removed", NEW: "kept", UNFINISHED: "kept"}
    assert not sets.exists()
    assert states(run_rivals("data", "prune", "--days", 0, "--json"))[0] == {NEW: "removed", UNFINISHED: "removed"}
    assert [each.name for each in Path("place/decoded").iterdir()] == ["mine.txt"]
    assert load("./old").size == Size(64, 64)  # decoded again


def test_what_was_of_no_use_the_longest_is_removed_until_the_rest_fits(run_rivals, sets):
    found, _ = states(run_rivals("data", "prune", "--gigabytes", 7e-6, "--json"))
    assert found == {OLD: "removed", NEW: "kept", UNFINISHED: "kept"}


def test_to_read_an_entry_is_to_use_it(run_rivals, sets):
    load("./old")
    assert states(run_rivals("data", "prune", "--days", 5, "--json"))[0][OLD] == "kept"


def test_a_decoding_under_way_is_left_alone(run_rivals):
    with exclusive(Path("place/locks"), "0123456789abcdef01234567"):
        assert states(run_rivals("data", "prune", "--days", 1, "--json"))[0][UNFINISHED] == "in use"


@pytest.mark.parametrize("words", [("--days", "-1"), ("--gigabytes", "1e12")])
def test_numbers_that_cannot_work_are_refused(run_rivals, words):
    assert_refused(run_rivals("data", "prune", *words), words[0], "cannot work")


def test_the_place_of_the_cache_is_chosen_by_a_flag(run_rivals):
    assert run_rivals("data", "pack", "./new", "a.zip", "--cache", "there").status == 0
    assert len(list(Path("there/decoded").iterdir())) == 1
    assert os.environ["RIVALS_CACHE"] == "place" and decode_cache.folder() == Path("place/decoded")
    assert_refused(run_rivals("data", "pack", "./new", "b.zip", "--cache", "new/a.png"), "--cache", "is a file")
    Path("settings.toml").write_text('cache = "elsewhere"')
    assert run_rivals("data", "pack", "./new", "b.zip", "--config", "settings.toml").status == 0
    assert Path("elsewhere/decoded").is_dir()
    Path("settings.toml").write_text("cache = 3")
    assert_refused(run_rivals("data", "pack", "./new", "c.zip", "--config", "settings.toml"), "cache 3")
