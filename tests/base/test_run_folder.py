"""Run folders: made once, locked before anything is in them, never made again in half."""

import json
import shutil

import pytest

from rivals.base.errors import UserError
from rivals.base.file_lock import file_lock
from rivals.base.run_folder import LOCK, Run, parse_record


def test_a_folder_that_another_process_is_just_creating_is_refused(tmp_path):
    pytest.importorskip("fcntl")
    with (
        file_lock(tmp_path / LOCK, wait=False),  # the other one: it has no run.json yet
        pytest.raises(UserError, match="in use by another process"),
    ):
        Run.create(tmp_path, {"command": "train"})
    assert not list(tmp_path.iterdir())
    (tmp_path / LOCK).touch()  # as a process leaves it that is killed
    assert Run.create(tmp_path, {"command": "train"}).info["command"] == "train"


def test_a_run_that_could_not_be_read_back_is_not_begun(tmp_path):
    with pytest.raises(UserError) as caught:
        Run.create(tmp_path / "run", {"data": {"classes": ["tea", "caf\udce9"]}})
    said = (
        "no run can be recorded: data.classes[1] has text that is not Unicode: rename the file or folder of that name"
    )
    assert str(caught.value) == said
    assert not (tmp_path / "run").exists()


def test_a_start_that_was_killed_while_it_wrote_run_json_can_be_repeated(tmp_path):
    (tmp_path / ".run.json.123.tmp").write_text("{")
    assert Run.create(tmp_path, {"seed": 3}).info["seed"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_removed_folder_is_not_made_again(tmp_path):
    run = Run.create(tmp_path / "r", {})
    shutil.rmtree(run.folder)
    for write in (lambda: run.append([{"step": 1}]), lambda: run.update(state="finished")):
        with pytest.raises(UserError, match="r' was removed or replaced"):
            write()
    assert not run.folder.exists()


def test_nothing_is_added_to_a_run_that_began_in_the_place_of_a_removed_one(tmp_path):
    first = Run.create(tmp_path / "r", {"seed": 1})
    first.folder.rename(tmp_path / "away")
    second = Run.create(tmp_path / "r", {"seed": 2})
    for write in (lambda: first.append([{"step": 1}]), lambda: first.update(state="finished")):
        with pytest.raises(UserError, match="was removed or replaced"):
            write()
    second.append([{"images": 448, "step": 7, "seconds": 0.5}])
    assert [record["step"] for record in second.records()] == [7]
    assert second.info == {"format": 1, "state": "running", "seed": 2}


@pytest.mark.parametrize(
    "damage",
    [
        {"loss/generator": "0.7"},
        {"loss/discriminator": None},
        {"equilibrium/r_v": [1]},
        {"d_real": "x"},
        {"diversity": {}},
        {"alarm": "mode-collapse", "message": "m", "remedy": "r"},
        {"alarm": "mode-collapse", "message": "m", "remedy": "r", "raised": "yes"},
    ],
)
def test_a_record_whose_values_are_no_numbers_is_damaged(damage):
    record = {"images": 8, "step": 2, "seconds": 0.1, "loss/generator": 0.7, "loss/discriminator": 0.6}
    assert parse_record(json.dumps(record).encode()) == record
    assert parse_record(json.dumps({**record, "alarm": "x", "message": "", "remedy": "", "raised": True}).encode())
    assert parse_record(json.dumps({**record, **damage}).encode()) is None


@pytest.mark.parametrize("damage", [{"versions": 3}, {"versions": {"torch": []}}, {"hardware": [1]}, {"device": 0}])
def test_a_run_that_says_nothing_of_its_machine_is_refused(damage, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, **damage}))
    with pytest.raises(UserError, match=next(iter(damage))):
        Run.open(tmp_path)


def written(run):
    return run.metrics.read_bytes().splitlines()


def a_log(folder, steps, pad=""):
    run = Run.create(folder, {})
    run.samples.mkdir()
    for step in steps:
        run.append([{"images": 8 * step, "step": step, "seconds": 0.1, "pad": pad}])
        (run.samples / f"{8 * step:09d}.png").touch()
    return run


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 16])
@pytest.mark.parametrize("kept", [-1, 0, 3, 6, 9])
def test_a_log_is_cut_after_the_last_record_that_stays(tmp_path, monkeypatch, block, kept):
    monkeypatch.setattr("rivals.base.run_folder.BLOCK", block)
    steps = [0, 1, 3, 3, 4, 6, 6]
    run = a_log(tmp_path, steps)
    before = written(run)
    run.rewind(kept)
    stay = sum(step <= kept for step in steps)
    assert written(run) == before[:stay]
    assert {int(path.stem) for path in run.samples.iterdir()} == {8 * step for step in steps[:stay]}
    run.append([{"images": 80, "step": 10, "seconds": 0.1}])  # to the new file, not to the one that was open
    assert [record["step"] for record in run.records()] == [*steps[:stay], 10]


def test_damaged_lines_and_a_line_cut_short_are_dropped_with_the_records_around_them(tmp_path):
    run = a_log(tmp_path, range(5), pad="x" * 50)
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    lines[1] = b"{damaged\n"
    lines[3] = b"\xff\xfe\n"
    run.metrics.write_bytes(b"".join(lines) + lines[-1][:20])
    run.rewind(3)
    assert run.metrics.read_bytes() == b"".join(lines[:3])
    assert [record["step"] for record in run.records()] == [0, 2]
    assert run.n_damaged == 1


def test_a_run_without_records_is_rewound_to_none(tmp_path):
    run = Run.create(tmp_path, {})
    run.rewind(-1)
    assert not run.metrics.exists()
    run.metrics.write_bytes(b"no end")
    run.rewind(5)
    assert run.metrics.read_bytes() == b""


def test_records_go_to_a_log_that_was_merged_or_replaced_meanwhile(tmp_path):
    run = a_log(tmp_path, [2, 1])
    run.merge_logs(lambda record: True)
    run.append([{"images": 24, "step": 3, "seconds": 0.1}])
    assert [record["step"] for record in run.records()] == [1, 2, 3]
    run.metrics.unlink()
    run.append([{"images": 32, "step": 4, "seconds": 0.1}])
    assert [record["step"] for record in run.records()] == [4]


def test_the_log_is_closed_with_the_lock(tmp_path):
    run = Run.create(tmp_path, {})
    with run.lock():
        run.append([{"images": 8, "step": 1, "seconds": 0.1}])
        assert run._log is not None
    assert run._log is None
    run.append([{"images": 16, "step": 2, "seconds": 0.1}])
    assert [record["step"] for record in run.records()] == [1, 2]
