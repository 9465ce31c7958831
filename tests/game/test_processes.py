"""One game on several processes: the same bits as on one, and what they tell each other."""

import hashlib
import os
import time

import pytest
import torch

from helpers.processes import run_in_processes
from helpers.small_games import noise_images, small_game
from rivals.api.training.adversarial import HardenJob
from rivals.api.training.job import Request
from rivals.base.duration import Duration
from rivals.base.process_group import ALONE, ProcessGroup
from rivals.data.batches import Batches
from rivals.data.splits import hold_out
from rivals.game.callbacks import Callback, OnLog
from rivals.game.checkpoint import Checkpoints
from rivals.game.classifier_step import ClassifierStep
from rivals.game.game import Game, Turn
from rivals.game.loop import Saving, play
from rivals.game.metric_buffer import TrainingFailure
from rivals.game.player import Player, adam
from rivals.losses.classification import cross_entropy

MICRO_BATCHES = 4
GANS = {
    "r3": {},
    "quick": {"lecam": 0.1, "cr": 10.0, "gp": 1.0},
    "sngan": {"conditional": True, "augment": "ada", "augment_target": 0.6},
    "dcgan": {"flip": True, "precision": "bf16"},
}
HARDENINGS = {
    "pgd": {"method": "pgd", "steps": 2},
    "trades": {"method": "trades", "steps": 2, "awp": 0.005},
    "free": {"method": "free", "replays": 2, "eps_warmup": 0.5},
}


def gan(name):
    game, config = small_game(name, batch_size=8, **{"precision": "fp32", **GANS[name]})
    return game, Batches(noise_images(), 8, seed=0, micro_batches=MICRO_BATCHES, flip=config.flip)


def hardening(name):
    settings = {"net": "resnet", "widths": (4, 8), "batch_size": 8, "until": "4 steps", "precision": "fp32"}
    job = HardenJob(Request("noise", None, None, False, 0, "cpu", True, {**settings, **HARDENINGS[name]}))
    job.config_settings["micro_batches"] = MICRO_BATCHES
    job.loaded = job.images = noise_images()
    job.images, job.held_out = hold_out(job.loaded, 5, 0)
    job.resolve_config()
    return job.build_game(), job.make_batches()


def make_game(name):
    return gan(name) if name in GANS else hardening(name)


def digest(state):
    hashed = hashlib.sha256()
    for key, value in sorted(state.items()):
        hashed.update(key.encode() + value.float().numpy().tobytes())
    return hashed.hexdigest()


def play_all(processes):
    """For every game: digests of its state after two rounds, and of the last values."""
    torch.set_num_threads(1)
    digests = {}
    for name in (*GANS, *HARDENINGS):
        game, batches = make_game(name)
        for step in range(2):
            values = game.round(step, batches, seed=3, processes=processes)
        digests[name] = digest(game.state()), digest({key: value.reshape(1) for key, value in values.items()})
    return digests


@pytest.fixture(scope="module")
def digests():
    return {1: [play_all(ALONE)], **{size: run_in_processes(size, play_all) for size in (2, 4)}}


@pytest.mark.parametrize("name", [*GANS, *HARDENINGS])
def test_any_number_of_processes_plays_the_same_game(digests, name):
    [alone] = digests[1]
    assert [each[name] for each in digests[2]] == [alone[name]] * 2
    assert [each[name] for each in digests[4]] == [alone[name]] * 4


@pytest.mark.parametrize("count", [2, 8])
def test_micro_batches_give_the_gradient_of_the_whole_batch(count):
    """Without randomness and batch statistics a batch in parts is the batch, up to rounding."""
    nets = []
    for parts in (1, count):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
        game = Game({"net": Player(net, adam(0.1))}, [Turn("net", cross_entropy())], make_step=ClassifierStep)
        batches = Batches(noise_images(), 16, seed=0, micro_batches=parts)
        values = game.round(0, batches, seed=0)
        nets.append((net, values["loss/net"], values["grad_norm/net"]))
    (whole, *expected), (parted, *got) = nets
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
    # The first step of Adam is the sign of the gradient, nearly.
    torch.testing.assert_close(whole.state_dict(), parted.state_dict(), rtol=1e-3, atol=1e-4)


def test_batch_statistics_are_averaged_over_micro_batches():
    """Running statistics take one step from where the turn began, to the mean over the micro-batches."""
    norm = torch.nn.BatchNorm2d(1, momentum=0.25)
    net = torch.nn.Sequential(norm, torch.nn.Flatten(), torch.nn.Linear(64, 2))
    game = Game({"net": Player(net, adam(0.1))}, [Turn("net", cross_entropy())], make_step=ClassifierStep)
    batches = Batches(noise_images(), 16, seed=0, micro_batches=4)
    game.round(0, batches, seed=0)
    parts = [batches.draw(0, part=part)[0] / 255 for part in range(4)]
    torch.testing.assert_close(norm.running_mean, 0.25 * torch.stack([part.mean() for part in parts]).mean()[None])
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * torch.stack([part.var() for part in parts]).mean()[None])
    assert norm.num_batches_tracked == 1


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    def steps(until, resume):
        def function(processes):
            torch.set_num_threads(1)
            game, batches = gan("quick")
            saving = Saving(Checkpoints(tmp_path / "parts"), Duration(2, "steps"), resume)
            play(game, batches, until=until, seed=0, saving=saving, processes=processes)
            return digest(game.state())

        return function

    assert None not in run_in_processes(4, steps("3 steps", False))
    assert len(set(run_in_processes(2, steps("5 steps", True)))) == 1
    game, batches = gan("quick")
    play(game, batches, until="7 steps", seed=0)
    assert steps("7 steps", True)(ALONE) == digest(game.state())


def test_a_stop_asked_of_any_process_ends_all_at_the_same_step():
    def function(processes):
        game, batches = gan("quick")
        calls = iter(range(100))
        stop = (lambda: next(calls) == 3) if processes.rank == 1 else (lambda: False)
        return play(game, batches, until="1000 steps", stop=stop, processes=processes).step

    assert run_in_processes(2, function) == [3, 3]


def test_a_length_in_minutes_is_measured_by_the_first_process():
    def function(processes):
        game, batches = gan("quick")
        end = play(game, batches, until="0.005 minutes", processes=processes)
        return end.step, end.seconds

    first, second = run_in_processes(2, function)
    assert first == second
    assert first[1] >= 0.3


class FailsOnce(Callback):
    def __init__(self):
        self.failed = False

    def on_record(self, record, progress):
        if record.get("step") == 3 and not self.failed:
            self.failed = True
            raise TrainingFailure("as planned")
        return ()


@pytest.mark.parametrize("rollback", [True, False])
def test_a_failure_seen_by_the_first_process_is_one_of_all(tmp_path, rollback):
    def function(processes):
        game, batches = gan("quick")
        records = []
        saving = Saving(Checkpoints(tmp_path / "saved"), Duration(2, "steps"), rollback=rollback)
        callbacks = [FailsOnce(), OnLog(records.append)]
        play(game, batches, until="5 steps", callbacks=callbacks, saving=saving, processes=processes)
        return digest(game.state()), game.lr_scale, [record["rollback"] for record in records if "rollback" in record]

    first, second = run_in_processes(2, function)
    if rollback:
        assert first[:2] == second[:2]
        assert first[1:] == (0.5, [2])
    else:
        assert first == "TrainingFailure: as planned"
        assert second.startswith("TrainingFailure: ")


def test_a_disk_that_is_full_ends_all_processes(tmp_path):
    (tmp_path / "file").write_text("")

    def function(processes):
        game, batches = gan("quick")
        saving = Saving(Checkpoints(tmp_path / "file" / "checkpoints"), Duration(2, "steps"))
        play(game, batches, until="5 steps", saving=saving, processes=processes)

    first, second = run_in_processes(2, function)
    assert first.startswith("UserError: ")
    assert second == first.replace("UserError: ", "UserError: process 0: ")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_is_missed(rank):
    def function(processes):
        game, batches = gan("quick")
        for step in range(100):
            if processes.rank == rank and step == 2:
                os._exit(9)
            game.round(step, batches, seed=0, processes=processes)

    results = run_in_processes(2, function)
    assert results[rank] is None
    assert results[1 - rank].startswith(f"ProcessLost: process {1 - rank} of 2 lost contact")


def test_a_process_that_hangs_is_given_up():
    def function(processes):
        if processes.rank == 1:
            time.sleep(8)
        return processes.agree(1.0)

    assert run_in_processes(2, function, timeout=1.5)[0].startswith("ProcessLost: process 0 of 2 lost contact")


def test_the_ring_gives_all_processes_the_same_numbers_close_to_the_tree():
    def function(processes):
        torch.set_num_threads(1)
        processes.reduction = "ring"
        game, batches = gan("r3")
        values = game.round(0, batches, seed=0, processes=processes)
        return digest(game.state()), {key: value.item() for key, value in values.items()}

    game, batches = gan("r3")
    expected = game.round(0, batches, seed=0)
    first, second = run_in_processes(2, function)
    assert first == second
    assert first[1] == {key: pytest.approx(value.item(), rel=1e-4) for key, value in expected.items()}


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_the_mean_of_parts(parts):
    values = torch.randn(parts, 3, dtype=torch.float64)
    mean = ProcessGroup().mean(([value.clone()] for value in values), parts)
    torch.testing.assert_close(mean, [values.mean(0)])
