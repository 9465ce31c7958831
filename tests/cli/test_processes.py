"""Commands on several processes, as ``torchrun`` starts them: one run, one voice."""

import json
import signal

import pytest

from helpers.commands import TINY, CommandProcess, assert_refused, call_main
from helpers.kill_and_resume import goes_on, timeless_records
from helpers.processes import free_port
from helpers.small_networks import small_net
from rivals.api.common.network_io import save_network

pytestmark = pytest.mark.usefixtures("empty_folder")

TRAIN = ["train", "--recipe", "quick", "--micro-batches", "4", "--precision", "fp32", *TINY]
HARDEN = ["harden", "--method", "pgd", "--steps", "1", "--net", "resnet", "--widths", "4", "8", "--micro-batches", "2"]


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Starts ``rivals WORDS`` in several processes that know of each other; with more words for ``each``."""

    def start(size, *words, each=None):
        port = free_port()
        processes = []
        for rank in range(size):
            variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
            for name, value in {**variables, "MASTER_ADDR": "127.0.0.1"}.items():
                monkeypatch.setenv(name, str(value))
            processes.append(CommandProcess(*words, *(each[rank] if each else ()), out=tmp_path / "streams"))
        for name in variables:
            monkeypatch.delenv(name)
        return processes

    return start


@pytest.fixture
def eyes(tmp_path):
    """A small extractor by its name."""
    (tmp_path / "eyes").mkdir()
    save_network(small_net(channels=3), tmp_path / "eyes" / "classifier.safetensors", {})
    return f"classifier:{tmp_path / 'eyes'}"


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        ([*TRAIN, "--until", "6 steps"], "generator"),
        ([*HARDEN, "--until", "2 epochs", "--batch-size", "8"], "classifier"),
    ],
)
def test_two_processes_make_the_run_of_one_and_the_first_speaks(start, tmp_path, photos, words, weights):
    one, two = tmp_path / "one", tmp_path / "two"
    assert call_main((*words, photos, "--quiet", "--out", one)) == 0
    first, second = (process.wait() for process in start(2, *words, photos, "--json", "--out", two))
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert (one / f"{weights}.safetensors").read_bytes() == (two / f"{weights}.safetensors").read_bytes()
    assert timeless_records(one) == timeless_records(two)
    assert json.loads(first.out)["run"] == str(two)
    assert second.out == second.err == ""
    assert json.loads((two / "run.json").read_text())["processes"] == 2


def test_a_run_that_was_killed_on_two_processes_goes_on_with_one(start, tmp_path, photos):
    run, words = tmp_path / "run", [*TRAIN, photos, "--checkpoint-every", "2 steps", "--quiet"]
    whole = tmp_path / "whole"
    first, second = start(2, *words, "--until", "1M steps", "--out", run)
    first.wait_until(lambda: list((run / "checkpoints").glob("*[1-9]*.safetensors")))
    second.kill()
    status, out, err = first.wait()
    assert status == 1
    assert out == ""
    ours = [line for line in err.splitlines() if line.startswith("rivals: ")]  # torch, imported before, adds its own
    assert len(ours) == 1
    assert ours[0].startswith("rivals: process 0 of 2 lost contact with another one")
    step = max(int(path.stem) for path in (run / "checkpoints").glob("*.safetensors"))
    length = f"{step + 3} steps"
    with goes_on(run):
        assert call_main(("train", "--resume", "--out", run, "--until", length, "--quiet")) == 0
    assert call_main((*words, "--until", length, "--out", whole)) == 0
    assert (whole / "generator.safetensors").read_bytes() == (run / "generator.safetensors").read_bytes()


def test_a_signal_to_one_process_stops_and_saves_the_run(start, tmp_path, photos):
    run = tmp_path / "run"
    processes = start(2, *TRAIN, photos, "--until", "1M steps", "--quiet", "--out", run)
    processes[0].wait_until(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size > 2000)
    processes[1].send(signal.SIGTERM)
    first, second = (process.wait() for process in processes)
    assert (first.status, second.status) == (130, 130)
    assert "stopped and saved" in first.err
    assert second.err == ""
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"


def test_what_cannot_work_is_said_once(start, tmp_path, photos):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    words = ["train", photos, *TINY, "--until", "2 steps", "--out"]
    for more, part in (
        ([tmp_path / "run"], "2 processes cannot share 1 micro-batch equally: add --micro-batches 2"),
        ([tmp_path / "taken", "--micro-batches", "2"], "exists already and is not empty"),
        (
            [tmp_path / "run", "--micro-batches", "2", "--score-every", "1 steps", "--score-seconds", "900"],
            "with --score-seconds 900 the other processes would give the first one up",
        ),
    ):
        first, second = (process.wait() for process in start(2, *words, *more))
        assert_refused(first, part)
        assert (second.status, second.out, second.err) == (2, "", "")
    assert not (tmp_path / "run").exists()
    first, second = (process.wait() for process in start(2, "data", "ls"))
    assert_refused(first, "rivals data ls runs in one process, and 2 were started: call it by itself")


def test_processes_that_were_told_other_things_are_refused(start, tmp_path, photos):
    words = [*TRAIN, photos, "--until", "2 steps", "--out", tmp_path / "run"]
    for mine, theirs, parts in (
        ([], ["--seed", "2"], ["another --seed", "2 instead of 0"]),
        (["--reduction", "ring"], [], ["another --reduction", "none instead of ring"]),
        ([], ["--hold-out", "5"], ["another --hold-out", "5 instead of none"]),
    ):
        first, second = (process.wait() for process in start(2, *words, each=(mine, theirs)))
        assert_refused(first, "process 1 has ", *parts)
        assert (second.status, second.err) == (2, "")
    assert not (tmp_path / "run").exists()


def test_two_processes_attack_as_one(start, tmp_path, photos):
    model = tmp_path / "model"
    classify = ("classify", photos, "--until", "30 steps", "--widths", "4", "8", "--batch-size", "8", "--quiet")
    assert call_main((*classify, "--out", model)) == 0
    words = ["attack", model, photos, "--split", "all", "--attack", "fgsm,square(queries=20)", "--batch-size", "2"]
    words += ["--eps", "1/255,8/255"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert call_main((*words, "--quiet", "--out", one)) == 0
    first, second = (process.wait() for process in start(2, *words, "--out", two))
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert second.out == second.err == ""
    assert_same_results(one, two)
    for name in ("examples.npz", "adversarial.npz"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert not list(two.glob("*-1.*"))


def test_two_processes_sample_and_score_as_one(start, tmp_path, trained, eyes):
    one, two = tmp_path / "one", tmp_path / "two"
    words = ["sample", trained, "-n", 70]
    assert call_main((*words, "--grid", one / "grid.png", "--folder", one / "images")) == 0
    first, second = (
        process.wait() for process in start(2, *words, "--grid", two / "grid.png", "--folder", two / "images")
    )
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert str(two / "grid.png") in first.out
    assert second.out == second.err == ""
    files = sorted(path.relative_to(one) for path in one.rglob("*.png"))
    assert len(files) == 71
    assert [(one / name).read_bytes() for name in files] == [(two / name).read_bytes() for name in files]
    words = ["score", trained, "--extractor", eyes, "-n", 300, "--metrics", "fd"]
    assert call_main((*words, "--quiet", "--out", one)) == 0
    first, second = (process.wait() for process in start(2, *words, "--out", two))
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert second.out == second.err == ""
    for name in ("scores.json", "neighbors.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_two_processes_certify_as_one(start, tmp_path, photos):
    model = tmp_path / "model"
    classify = ("classify", photos, "--until", "10 steps", "--widths", "4", "8", "--batch-size", "8", "--quiet")
    assert call_main((*classify, "--out", model)) == 0
    words = [
        "certify",
        model,
        photos,
        "--split",
        "all",
        "--n",
        "6",
        "--samples",
        "100",
        "--guesses",
        "10",
        "--steps",
        "2",
    ]
    words += ["--alpha", "0.01", "--radii", "0,0.1"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert call_main((*words, "--quiet", "--out", one)) == 0
    first, second = (process.wait() for process in start(2, *words, "--out", two))
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert second.out == second.err == ""
    assert_same_results(one, two)


def test_an_attack_on_two_processes_that_is_killed_goes_on_with_one(start, tmp_path, photos):
    model = tmp_path / "model"
    classify = ("classify", photos, "--until", "30 steps", "--widths", "4", "8", "--batch-size", "8", "--quiet")
    assert call_main((*classify, "--out", model)) == 0
    words = ["attack", model, photos, "--split", "all", "--attack", "pgd(steps=100),square(queries=100)", "--quiet"]
    words += ["--eps", "1/255,2/255", "--batch-size", "1"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert call_main((*words, "--out", whole)) == 0
    processes = start(2, *words, "--out", run)
    logs = [run / "metrics.jsonl", run / "metrics-1.jsonl"]
    processes[0].wait_until(lambda: all(log.exists() and log.stat().st_size > 300 for log in logs))
    for process in processes:
        process.kill()
    assert call_main(("attack", "--resume", "--out", run, "--quiet")) == 0
    assert_same_results(whole, run)


def assert_same_results(one, two):
    """Check that two evaluations have the same results and records but for times."""
    ours, theirs = (json.loads((run / "run.json").read_text()) for run in (one, two))
    assert timeless(ours["results"]) == timeless(theirs["results"])
    assert timeless_records(one) == timeless_records(two)


def timeless(results):
    """Results without what a clock says."""
    if isinstance(results, dict):
        return {key: timeless(value) for key, value in results.items() if "second" not in key}
    if isinstance(results, list):
        return [timeless(value) for value in results]
    return results
