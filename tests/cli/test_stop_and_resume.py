"""Commands that are stopped, killed, or run out of disk or memory, and go on."""

import contextlib
import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from helpers.commands import TINY, CommandProcess, assert_refused
from helpers.kill_and_resume import assert_killed_run_resumes, goes_on, timeless_records
from rivals.recipes import SampleConfig

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_ctrl_c_and_a_hangup_save_exit_with_130_and_the_run_resumes(run_rivals, tmp_path, photos):
    run, words = tmp_path / "r", ["train", photos, "--until", "1M steps", "--quiet", *TINY]
    records = run / "metrics.jsonl"
    for number, more in ((signal.SIGINT, []), (signal.SIGHUP, ["--resume"])):
        before = records.stat().st_size if more else 0
        process = CommandProcess(*words, *more, "--out", run, out=tmp_path / "streams")
        process.wait_until(lambda before=before: records.exists() and records.stat().st_size > before + 2000)
        process.send(number)
        status, _, err = process.wait()
        assert status == 130, err
        assert err.count("\n") == 1
        assert "--resume" in err
        about = json.loads((run / "run.json").read_text())
        assert about["state"] == "interrupted"
        assert (run / "report.html").exists()
        steps = [record["step"] for record in timeless_records(run)]
        assert steps == sorted(steps)
    final = about["step"] + 3
    with goes_on(run):
        status, out, err = run_rivals("train", "--resume", "--out", run, "--until", f"{final} steps", "--json")
    assert status == 0, err
    assert json.loads(out)["step"] == final


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, photos):
    """Killed by SIGKILL in mid-course; the benchmark `resume` does it at twenty random moments."""
    often = ("--checkpoint-every", "7 steps")
    words = ["train", photos, "--until", "60 steps", "--sample-every", "5 steps", *often, "--quiet", *TINY]
    assert_killed_run_resumes(words, home=tmp_path, weights="generator.safetensors", resume=often)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name != "posix" or os.geteuid() or subprocess.call(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", disk]):
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_reported_in_one_line_and_the_last_checkpoint_stays(small_disk, photos, run_rivals):
    from rivals.game.checkpoint import Checkpoints

    run = small_disk / "run"
    often = ["--checkpoint-every", "3 steps", "--sample-every", "1 steps", "--quiet"]
    words = ["train", photos, "--out", run, "--until", "1M steps", *often, *TINY]
    assert_refused(run_rivals(*words), "no space left on the disk")
    _, facts = Checkpoints(run / "checkpoints").load()
    assert facts["step"] > 0
    subprocess.run(["mount", "-o", "remount,size=20M", small_disk], check=True)
    status, _, err = run_rivals("train", "--resume", "--out", run, "--until", f"{facts['step'] + 2} steps", "--quiet")
    assert status == 0, err


def test_a_run_that_diverges_stops_with_a_message(run_rivals, photos):
    words = ["--until", "50 steps", "--quiet", "--out", "r", *TINY]
    err = assert_refused(
        run_rivals(
            "train",
            photos,
            "--loss",
            "wasserstein",
            "--generator-lr",
            "1",
            "--discriminator-lr",
            "1",
            "--gp",
            "1e30",
            *words,
        )
    )
    assert "is not finite" in err
    assert "--on-nonfinite rollback" in err
    assert json.loads(Path("r/run.json").read_text())["state"] == "stopped"
    assert list(Path("r/checkpoints").iterdir())


def test_a_run_killed_before_its_first_checkpoint_begins_again(run_rivals, trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    shutil.rmtree(copy / "checkpoints")
    (copy / "generator.safetensors").unlink()
    status, _, err = run_rivals("train", "--resume", "--out", copy, "--quiet")
    assert status == 0, err
    assert (copy / "generator.safetensors").read_bytes() == (trained / "generator.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps.count(12) == 2  # the last batch and the last sample grid


def test_two_processes_do_not_play_one_run(run_rivals, trained, tmp_path):
    from rivals.base.run_folder import Run

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    before = (copy / "run.json").read_bytes()
    with Run.open(copy).lock():
        assert_refused(run_rivals("train", "--resume", "--out", copy, "--quiet"), "another process")
    assert (copy / "run.json").read_bytes() == before


def test_a_resume_tells_what_is_not_as_it_was_when_the_run_began(run_rivals, trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    words = ["train", "--resume", "--out", copy, "--until"]
    assert "not as the run began" not in run_rivals(*words, "13 steps").err
    info = json.loads((copy / "run.json").read_text())
    info["versions"]["torch"], info["hardware"]["threads"], info["hardware"]["cores"] = "1.0", 99, 99
    (copy / "run.json").write_text(json.dumps(info))
    status, _, err = run_rivals(*words, "14 steps")
    assert status == 0 and "not as the run began: torch 1.0 is now " in err and ", threads 99 is now " in err
    assert "cores" not in err


def test_settings_that_the_run_does_not_have_are_blamed_first(run_rivals, trained, photos, tmp_path):
    """To start from weights, as --freeze-d wants, is no way out: the run has not."""
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    refused = run_rivals("train", photos, "--freeze-d", "2", "--resume", "auto", "--out", copy)
    assert_refused(refused, "cannot resume with another freeze_d: it was 0, now 2")


def test_a_classifier_that_diverges_is_not_told_of_a_flag_that_its_command_does_not_have(
    run_rivals, photos, monkeypatch
):
    from rivals.losses import classification

    def broken(smoothing):
        return lambda step: {name: value * float("nan") for name, value in whole(smoothing)(step).items()}

    whole = classification.cross_entropy
    monkeypatch.setattr(classification, "cross_entropy", broken)
    words = ["--widths", "4", "--batch-size", "8", "--until", "3 steps", "--quiet"]
    err = assert_refused(run_rivals("classify", photos, "--out", "c", *words), "is not finite", "start a new run")
    assert "--" not in err


def test_of_two_starts_on_one_folder_one_is_refused(photos, tmp_path):
    words = ["train", photos, "--until", "3 steps", "--out", tmp_path / "r", "--quiet", *TINY]
    processes = [CommandProcess(*words, "--seed", seed, out=tmp_path / "s") for seed in (1, 2)]
    results = [process.wait() for process in processes]
    assert sorted(result.status for result in results) == [0, 2], results
    played, refused = sorted(results, key=lambda result: result.status)
    assert refused.err.count("\n") == 1 and f"'{tmp_path / 'r'}'" in refused.err
    assert json.loads((tmp_path / "r" / "run.json").read_text())["seed"] == 1 + results.index(played)
    steps = [record["step"] for record in timeless_records(tmp_path / "r") if "loss/generator" in record]
    assert steps == [1, 2, 3]


def test_a_run_whose_folder_is_removed_ends_with_one_line_and_does_not_make_it_again(photos, tmp_path):
    run = tmp_path / "r"
    often = ["--checkpoint-every", "3 steps", "--sample-every", "3 steps"]
    process = CommandProcess(
        "train", photos, "--until", "1M steps", "--out", run, "--quiet", *often, *TINY, out=tmp_path / "s"
    )
    process.wait_until(lambda: list((run / "checkpoints").glob("*[1-9]*.safetensors")))
    run.rename(tmp_path / "away")  # at one instant, as `rm -r` is not
    status, _, err = process.wait()
    assert status == 2 and err.count("\n") == 1, err
    assert "removed or replaced" in err
    assert not run.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_while_images_are_read_ends_the_command_with_one_line(run_rivals, photos, monkeypatch, number):
    from rivals.data import load

    read = load.load

    def interrupted(*args, **options):
        signal.raise_signal(number)
        return read(*args, **options)

    monkeypatch.setattr(load, "load", interrupted)
    status, out, err = run_rivals("train", photos, "--out", "r", *TINY)
    assert (status, out, err) == (130, "", "rivals: interrupted\n")
    assert not Path("r").exists()


def test_memory_that_does_not_suffice_is_said_in_one_line(run_rivals, photos, monkeypatch):
    """Asked of torch's own allocator, whose words are what we go by."""
    import torch

    from rivals.game.game import Game

    monkeypatch.setattr(Game, "round", lambda *_, **__: torch.empty(1 << 60))
    assert_refused(run_rivals("train", photos, "--out", "r", "--quiet", *TINY), "not enough memory", "--batch-size")


def test_another_net_drops_the_options_of_the_old_one(run_rivals, photos):
    for net in ("r3", "mlp"):
        words = ["--net", net, "--batch-size", "4", "--until", "1 steps", "--quiet", "--out", net]
        status, _, err = run_rivals("train", photos, *words)
        assert status == 0, err


def test_a_folder_called_like_a_setting_sets_nothing(run_rivals, photos):
    """Color is for a residual net where no net is asked for; before, the folder's name was asking."""
    nets = []
    for out in ("net", "elsewhere"):
        status, _, err = run_rivals(
            "classify", photos, "--until", "1 steps", "--batch-size", "4", "--quiet", "--out", out
        )
        assert status == 0, err
        nets.append(json.loads(Path(out, "run.json").read_text())["config"]["net"])
    assert nets == ["resnet", "resnet"]


def test_an_animation_of_a_conditional_generator_shows_its_classes_in_turn(photos, run_rivals):
    import rivals
    from rivals.api.common.network_io import FRAMES, interpolate

    words = ["--until", "1 steps", "--quiet", "--conditional", *TINY]
    assert run_rivals("train", photos, "--out", "c", *words)[0] == 0
    generator = rivals.load("c")
    frames = interpolate(generator, SampleConfig(n=3), None)
    assert len(frames) == 3 * FRAMES
    assert (frames[::FRAMES] == generator.sample(3, labels=[0, 1, 0]).numpy()).all()


def test_resume_auto_starts_a_run_and_then_continues_it(run_rivals, photos):
    words = ["train", photos, "--resume", "auto", "--out", "r", "--quiet", "--json", *TINY]
    for steps in (3, 3, 5):  # as a scheduler repeats the same line; then with a longer run
        with goes_on(Path("r")) if Path("r").exists() else contextlib.nullcontext():
            status, out, err = run_rivals(*words, "--until", f"{steps} steps")
        assert status == 0, err
        assert json.loads(out)["step"] == steps
    steps = [record["step"] for record in timeless_records(Path("r")) if "loss/generator" in record]
    assert steps == [1, 2, 3, 4, 5]
    assert_refused(run_rivals("train", photos, "--resume", "auto"), "--resume auto needs the folder", "--out")
    assert run_rivals("train", "--resume", photos, "--out", "r", "--quiet")[0] == 0  # in any order
    assert run_rivals("train", "--resume", "auto", photos, "--out", "r", "--quiet")[0] == 0


@pytest.mark.parametrize("command", ["attack", "certify"])
def test_resume_auto_of_an_evaluation(run_rivals, command, classified, photos):
    words = [command, classified, photos, "--resume", "auto", "--out", "e", "-n", "4", "--quiet", "--json"]
    words += ["--attack", "fgsm", "--no-alarms"] if command == "attack" else ["--draws", "20"]
    logs = []
    for _ in range(2):
        status, _, err = run_rivals(*words)
        assert status == 0, err
        logs.append(Path("e/metrics.jsonl").read_text())
    assert logs[0] == logs[1]  # nothing was measured again


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no SIGUSR1")
def test_repeated_sigterm_and_sigusr1_stop_a_run_once_and_nothing_is_lost(tmp_path, photos):
    run = tmp_path / "r"
    records = run / "metrics.jsonl"
    process = CommandProcess("train", photos, "--until", "1M steps", "--out", run, "--quiet", *TINY, out=tmp_path / "s")
    process.wait_until(lambda: records.exists() and records.stat().st_size > 2000)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        process.send(number)
    status, _, err = process.wait()
    assert status == 130 and err.count("\n") == 1 and "--resume" in err
    about = json.loads((run / "run.json").read_text())
    assert about["state"] == "interrupted" and (run / "report.html").exists()
    assert timeless_records(run)[-1]["step"] == about["step"]


def test_a_time_limit_saves_and_stops_and_is_of_one_process_alone(run_rivals, photos):
    words = ["--quiet", "--out", "r", *TINY]
    limited = run_rivals("train", photos, "--until", "1M steps", "--time-limit", "0.02 minutes", *words)
    assert limited[0] == 130 and "--resume" in limited[2]
    about = json.loads(Path("r/run.json").read_text())
    assert about["state"] == "interrupted" and 0 < about["seconds"] < 60
    status, _, err = run_rivals("train", "--resume", "--out", "r", "--until", f"{about['step'] + 2} steps", "--quiet")
    assert status == 0, err
    words = ["--out", "q", "--quiet", *TINY]
    assert_refused(
        run_rivals("train", photos, "--time-limit", "20 steps", *words), "a value of --time-limit", "minutes"
    )
    assert_refused(run_rivals("train", photos, "--time-limit", "0.001 seconds", *words), "before training began")
    assert not Path("q").exists()


def test_the_command_that_continues_a_run_can_be_pasted(run_rivals, photos):
    words = ["--quiet", "--out", "my runs/it's", *TINY]
    status, _, err = run_rivals("train", photos, "--until", "1M steps", "--time-limit", "3 seconds", *words)
    assert status == 130, err
    _, command = err.strip().split("continue with rivals ")
    step = json.loads(Path("my runs/it's/run.json").read_text())["step"]
    assert run_rivals(*shlex.split(command), "--until", f"{step + 1} steps", "--quiet")[0] == 0


def test_a_file_system_without_locks_is_told_and_the_run_goes_on(run_rivals, photos, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))  # as Lustre mounted without flock

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks"):
        status, _, err = run_rivals("train", photos, "--until", "2 steps", "--out", "r", "--quiet", *TINY)
    assert status == 0, err
    assert json.loads(Path("r/run.json").read_text())["state"] == "finished"
