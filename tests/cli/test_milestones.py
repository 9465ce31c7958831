"""Milestones: networks that a run keeps along its course."""

import json
from pathlib import Path

import pytest

import rivals
from helpers.commands import TINY, assert_refused


def milestones(run):
    return {path.name: path.read_bytes() for path in Path(run, "milestones").iterdir()}


def test_milestones_are_networks_that_other_commands_take(run_rivals, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--until", "12 steps", "--keep-every", "5 steps", "--quiet", *TINY]
    status, _, err = run_rivals("train", photos, "--out", "r", *words)
    assert status == 0, err
    batch = json.loads(Path("r/run.json").read_text())["config"]["batch_size"]
    names = [f"{batch * step:09d}" for step in (5, 10, 12)]  # the last one is the network of the run
    assert sorted(milestones("r")) == sorted(f"{name}{end}" for name in names for end in (".safetensors", ".json"))
    assert milestones("r")[f"{names[-1]}.safetensors"] == Path("r/generator.safetensors").read_bytes()
    early = rivals.load(f"r/milestones/{names[0]}.safetensors")
    assert early.about["images"] == 5 * batch
    status, _, err = run_rivals("sample", f"r/milestones/{names[0]}.safetensors", "--n", "2", "--grid", "s.png")
    assert status == 0, err
    logged = [
        record["milestone"]
        for line in Path("r/metrics.jsonl").read_text().splitlines()
        if "milestone" in (record := json.loads(line))
    ]
    assert logged == [f"milestones/{name}.safetensors" for name in names]


def test_a_run_that_goes_back_forgets_later_milestones_and_makes_the_same_again(
    run_rivals, photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["--until", "9 steps", "--keep-every", "2 steps", "--checkpoint-every", "5 steps", "--quiet", *TINY]
    assert run_rivals("train", photos, "--out", "r", *words)[0] == 0
    whole = milestones("r")
    for path in Path("r/checkpoints").iterdir():  # as after a kill in step 9
        if "5" not in path.stem:
            path.unlink()
    name = max(whole)
    Path("r/milestones", name).write_bytes(b"of another course")
    assert run_rivals("train", "--resume", "--out", "r", "--quiet")[0] == 0
    assert milestones("r") == whole


@pytest.mark.parametrize("wrong", ["sometimes", "0 steps", "3 parsecs"])
def test_a_wrong_distance_of_milestones_is_refused(run_rivals, photos, tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    assert_refused(run_rivals("train", photos, "--keep-every", wrong, "--out", "r", *TINY), "--keep-every", wrong)
    assert not Path("r").exists()
