"""Tracking: what trackers are given, read back from what they wrote; and that training goes on without them."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from helpers.commands import TINY
from rivals.api.training import tracking
from rivals.api.training.tracking import Tracking, scalars
from rivals.base.run_folder import Run


@pytest.fixture
def trained(run_rivals, photos, tmp_path, monkeypatch):
    """Trains with trackers; returns the run's records of grids and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "SECONDS_BETWEEN_STEPS", 0.0)

    def train(*words):
        status, out, err = run_rivals("train", photos, "--until", "6 steps", "--sample-every", "3 steps", *words, *TINY)
        assert status == 0, err
        return [*Run.open(tmp_path / "r").records()], out, err

    return train


def of_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_tensorboard_has_the_records_and_the_sample_grids(trained, run_rivals, tmp_path):
    pytest.importorskip("tensorboard")
    records, *_ = trained("--track", "tensorboard", "--out", "r", "--quiet")
    events = of_tensorboard(tmp_path / "r" / "tensorboard")
    wanted = [(each["step"], each["loss/generator"]) for each in records if "loss/generator" in each]
    found = [(each.step, each.value) for each in events.Scalars("loss/generator")]
    assert [step for step, _ in found] == [step for step, _ in wanted] == [1, 2, 3, 4, 5, 6]
    assert [value for _, value in found] == pytest.approx([value for _, value in wanted])
    assert [each.step for each in events.Images("samples")] == [0, 3, 6]
    assert events.Images("samples")[0].encoded_image_string.startswith(b"\x89PNG")

    # A run that goes on from a checkpoint plays some steps again: each is there once.
    for path in (tmp_path / "r" / "checkpoints").glob("*6*"):
        path.unlink()
    status, _, err = run_rivals("train", "--resume", "--out", "r", "--until", "8 steps", "--quiet")
    assert status == 0, err
    events = of_tensorboard(tmp_path / "r" / "tensorboard")
    assert [each.step for each in events.Scalars("loss/generator")] == [*range(1, 9)]


def test_a_tracker_that_is_not_installed_is_told_of_and_training_goes_on(trained, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    records, _, err = trained("--track", "wandb, mlflow", "--out", "r", "--quiet")
    assert err.splitlines() == [
        f"{name} is not installed, so nothing is tracked by it: pip install 'rivals[{name}]'; training goes on"
        for name in ("wandb", "mlflow")
    ]
    assert records[-1]["step"] == 6


@pytest.mark.parametrize("when", ["begins", "logs", "takes an image", "closes"])
def test_a_tracker_that_fails_is_told_of_once_and_training_goes_on(trained, monkeypatch, when):
    def fail(*args):
        print("noise")  # which must not get into the result
        raise OSError("no space left\nand more")

    def quiet(*args):
        pass

    def begin(run):
        if when == "begins":
            fail()
        return SimpleNamespace(
            log=fail if when == "logs" else quiet,
            image=fail if when == "takes an image" else quiet,
            rewind=quiet,
            close=fail if when == "closes" else quiet,
        )

    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    monkeypatch.setitem(tracking.TRACKERS, "trackio", begin)
    _, out, err = trained("--track", "trackio", "--out", "r", "--json", "--quiet")
    assert json.loads(out)["step"] == 6
    line = "trackio failed (no space left), so nothing more is tracked by it; training goes on"
    assert err.splitlines() == ["noise", line]


def test_an_unknown_tracker_is_refused(run_rivals, photos):
    status, _, err = run_rivals("train", photos, "--track", "tensorbord", *TINY)
    assert status == 2 and "unknown tracker 'tensorbord'" in err and "tensorboard" in err and err.count("\n") == 1


def test_steps_are_thinned_out_and_all_else_is_passed_on(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    tracker = SimpleNamespace(log=lambda values, step: taken.append(step))
    monkeypatch.setitem(tracking.TRACKERS, "wandb", lambda run: tracker)
    each = Tracking(["wandb"], Run(tmp_path))
    for step in range(100):
        each.on_log({"images": step, "step": step, "seconds": 0.01 * step, "images_per_second": 1.0})
    each.on_log({"images": 99, "step": 99, "seconds": 0.99, "score/FID": 3.0})
    assert taken == [0, 25, 50, 75, 99]


def test_scalars_of_records():
    alarm = {
        "images": 8,
        "step": 2,
        "seconds": 0.1,
        "alarm": "oscillation",
        "raised": True,
        "message": "",
        "remedy": "",
    }
    assert scalars(alarm) == {"alarm/oscillation": 1.0}
    record = {"images": 8, "step": 2, "seconds": 0.1, "d_real": 0.5, "sample_grid": "x.png", "speed": None}
    assert scalars(record) == {"images": 8.0, "d_real": 0.5}


class FakeMLflow(SimpleNamespace):
    """What of MLflow is told of its place: setting it sets the variable, too."""

    def __init__(self):
        self.places, self.runs, self.active = [], {}, None
        super().__init__(**{name: lambda *a, **k: None for name in ("set_experiment", "log_params", "log_metrics")})
        self.get_experiment_by_name = self.create_experiment = lambda *a, **k: None

    def set_tracking_uri(self, uri):
        if uri:
            self.places.append(uri)
            os.environ["MLFLOW_TRACKING_URI"] = uri

    def search_runs(self, filter_string, output_format):
        number = self.runs.get(filter_string.split("'")[1])
        return [] if number is None else [SimpleNamespace(info=SimpleNamespace(run_id=number))]

    def start_run(self, run_name=None, run_id=None, tags=None):
        assert self.active is None, "a run is active already"
        self.active = len(self.runs) if run_id is None else run_id
        for value in (tags or {}).values():
            self.runs[value] = self.active

    def end_run(self):
        self.active = None


def test_a_resumed_run_goes_on_in_its_run_of_mlflow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", fake := FakeMLflow())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    numbers = []
    for place, created in (("a", "1"), ("b", "2"), ("a", "1")):
        tracker = tracking.TRACKERS["mlflow"](started(tmp_path / place / "test", created))
        numbers.append(fake.active)
        tracker.close()
    assert numbers == [0, 1, 0] and len(fake.runs) == 2


def test_a_tracker_that_fails_is_closed(tmp_path, monkeypatch, capsys):
    """Or the next run of the process would be written into the place of this one."""
    monkeypatch.setitem(sys.modules, "mlflow", fake := FakeMLflow())
    monkeypatch.setattr(tracking, "find_spec", lambda name: True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    fake.log_metrics = lambda *a, **k: 1 / 0
    tracked = Tracking(["mlflow"], started(tmp_path / "run"))
    tracked.on_log({"images": 8, "step": 1, "seconds": 1.0, "images_per_second": None, "d_real": 0.5})
    assert "mlflow failed (division by zero)" in capsys.readouterr().err
    assert fake.active is None and "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.parametrize("mine", [None, "sqlite:///mine.db"])
def test_two_runs_of_a_process_have_a_place_of_mlflow_each_unless_the_user_has_one(tmp_path, monkeypatch, mine):
    monkeypatch.setitem(sys.modules, "mlflow", fake := FakeMLflow())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if mine:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mine)
    for name in ("one", "two"):
        tracking.TRACKERS["mlflow"](started(tmp_path / name)).close()
    assert os.environ.get("MLFLOW_TRACKING_URI") == mine
    wanted = [f"sqlite:///{tmp_path}/{name}/mlflow/mlflow.db" for name in ("one", "two")]
    assert fake.places == ([] if mine else wanted)


def test_runs_of_one_name_are_apart_for_trackio(tmp_path, monkeypatch):
    named = []
    fake = SimpleNamespace(init=lambda **given: named.append(given["name"]))
    monkeypatch.setitem(sys.modules, "trackio", fake)
    for place, created in (("a", "1"), ("b", "2"), ("a", "1")):
        tracking.TRACKERS["trackio"](started(tmp_path / place / "test", created))
    assert named == ["test-1", "test-2", "test-1"]  # the third is the first one, resumed


def started(folder, created="2026-01-01"):
    """A run as a tracker sees it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = {"config": {}, "command": "train", "recipe": "auto", "seed": 0, "created": created}
    return SimpleNamespace(folder=folder, info=info)


READ = {
    "wandb": """
import glob, json, struct
from wandb.proto import wandb_internal_pb2
data = open(glob.glob("r/wandb/offline-run-*/*.wandb")[0], "rb").read()
at, whole, steps = 7, b"", []  # a log as LevelDB's, in blocks of 32 KiB, after a header of 7 bytes
while at + 7 <= len(data):
    if 32768 - at % 32768 < 7:
        at += 32768 - at % 32768
        continue
    _, length, kind = struct.unpack("<IHB", data[at : at + 7])
    whole += data[at + 7 : at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # the end of a record
        record = wandb_internal_pb2.Record()
        record.ParseFromString(whole)
        whole = b""
        found = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
        if "loss/generator" in found:
            steps.append([int(json.loads(found["training_step"])), json.loads(found["loss/generator"])])
print(json.dumps(steps))
""",
    "trackio": """
import glob, json, os, sqlite3
rows = sqlite3.connect(glob.glob("place/*.db")[0]).execute("select metrics from metrics order by id").fetchall()
rows = [json.loads(row) for (row,) in rows]
print(json.dumps([[row["training_step"], row["loss/generator"]] for row in rows if "loss/generator" in row]))
""",
    "mlflow": """
import json
from mlflow.tracking import MlflowClient
client = MlflowClient("sqlite:///r/mlflow/mlflow.db")
(run,) = client.search_runs([client.get_experiment_by_name("rivals").experiment_id])
assert [each.path for each in client.list_artifacts(run.info.run_id, "samples")]
history = client.get_metric_history(run.info.run_id, "loss/generator")
print(json.dumps(sorted([each.step, each.value] for each in history)))
""",
}


@pytest.mark.parametrize("name", READ)
def test_what_other_trackers_wrote_offline_is_read_back(name, photos, tmp_path):
    """Each in a process of its own: they leave threads and hooks behind."""
    pytest.importorskip(name)
    offline = {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "place"), "MLFLOW_ENABLE_TELEMETRY": "false"}
    environment = {**os.environ, **offline}
    words = ["train", str(photos), "--until", "2 steps", "--track", name, "--out", "r", "--json", *TINY]
    command = [sys.executable, "-m", "rivals", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "training goes on" not in done.stderr, done.stderr
    assert json.loads(done.stdout)["step"] == 2
    read = subprocess.run(
        [sys.executable, "-c", READ[name]], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(read.stdout.splitlines()[-1])
    wanted = [[each["step"], each["loss/generator"]] for each in Run(tmp_path / "r").records() if "d_real" in each]
    assert found[0] == pytest.approx(wanted[0])  # the steps after it may have been thinned out
