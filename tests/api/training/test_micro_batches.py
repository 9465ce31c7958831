"""How many micro-batches fit, and whether processes can share a game."""

import pytest

import rivals
from helpers.small_games import noise_images
from rivals.api.common.alike import _code_hash
from rivals.api.training.micro_batches import check_same_game, check_share, fit_micro_batches
from rivals.base.process_group import ALONE, ProcessGroup
from rivals.game.game import Game


class Several(ProcessGroup):
    """Some processes, of which the others say what they are told to."""

    def __init__(self, size, **others):
        self.size = size
        self.others = others

    def gather(self, value):
        other = {what: self.others.get(each, each) for what, each in value.items()}
        return [value] * (self.size - 1) + [other]


@pytest.mark.parametrize(
    ("largest", "size", "count"), [(64, 1, 1), (16, 1, 4), (16, 2, 4), (64, 2, 2), (63, 4, 4), (2, 1, 32)]
)
def test_the_least_number_of_micro_batches_that_fits(largest, size, count):
    tried = []

    def play_round(parts):
        tried.append(parts)
        if 64 // parts > largest:
            raise RuntimeError("can't allocate memory: you tried to allocate 1 bytes")

    assert fit_micro_batches(64, Several(size), play_round) == count
    assert tried == sorted(set(tried))


@pytest.mark.parametrize("batch_size", [64, 48, 10])
def test_a_batch_that_never_fits_is_refused(batch_size):
    def play_round(parts):
        raise RuntimeError("can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(rivals.UserError, match=f"a batch of {batch_size} does not fit into memory"):
        fit_micro_batches(batch_size, ALONE, play_round)


@pytest.mark.parametrize(("batch_size", "size", "fix"), [(100, 8, 16), (4, 4, 8), (1, 1, 2), (9, 2, 4)])
def test_a_batch_that_cannot_be_cut_is_not_blamed_on_memory(batch_size, size, fix):
    with pytest.raises(rivals.UserError, match=f"batch of {batch_size} cannot be cut .* a --batch-size of {fix} times"):
        fit_micro_batches(batch_size, Several(size), lambda parts: pytest.fail("nothing to try"))


def test_a_bug_is_not_taken_for_a_lack_of_memory():
    def play_round(parts):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        fit_micro_batches(64, ALONE, play_round)


@pytest.mark.parametrize(
    ("size", "parts", "fix"),
    [
        (2, 1, "2 processes cannot share 1 micro-batch equally: add --micro-batches 2"),
        (8, 4, "8 processes cannot share 4 micro-batches equally: add --micro-batches 8"),
        (3, 4, "3 processes cannot share 4 micro-batches equally: start 2 or 4 processes and add --micro-batches 4"),
    ],
)
def test_processes_that_cannot_share_a_step_are_refused(size, parts, fix):
    check_share(Several(size), 8 * size)
    with pytest.raises(rivals.UserError, match=fix):
        check_share(Several(size), parts)


@pytest.mark.parametrize("what", ["images", "version of rivals", "code of rivals"])
def test_processes_with_other_images_or_code_are_refused(what):
    images = noise_images()
    known = {"images": images.hash, "version of rivals": rivals.__version__, "code of rivals": _code_hash()}
    mine = known[what]
    check_same_game(Several(2), Game({"net": _player()}, []), images, images)
    with pytest.raises(rivals.UserError, match=f"process 1 has another {what} than process 0, other instead of {mine}"):
        check_same_game(Several(2, **{mine: "other"}), Game({"net": _player()}, []), images, images)


def _player():
    import torch

    from rivals.game.player import Player, adam

    return Player(torch.nn.Linear(2, 2), adam(1e-3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"micro_batches": 3}, "--micro-batches 3 cannot work: take 1, 2, 4 or another power of two, or auto"),
        ({"micro_batches": 0}, "--micro-batches 0 cannot work"),
        ({"micro_batches": "many"}, "--micro-batches many cannot work"),
        ({"micro_batches": 4, "batch_size": 30}, "--batch-size 30 cannot be cut into 4 micro-batches"),
        (
            {"micro_batches": 8, "batch_size": 8},
            "--batch-size 8 cannot be cut into 8 micro-batches of 2 images or more",
        ),
    ],
)
@pytest.mark.parametrize("config", [rivals.Config, rivals.ClassifierConfig, rivals.HardenConfig])
def test_wrong_numbers_of_micro_batches_are_refused(config, settings, message):
    with pytest.raises(rivals.UserError, match=message):
        config().changed(**settings)


def test_auto_takes_what_fits(monkeypatch, tmp_path):
    played = Game.round

    def round(self, step, batches, **settings):
        if batches.batch_size // batches.micro_batches > 4:
            raise RuntimeError("can't allocate memory: you tried to allocate 1 bytes")
        return played(self, step, batches, **settings)

    monkeypatch.setattr(Game, "round", round)
    settings = {"recipe": "mlp-classic", "batch_size": 16, "until": "2 steps", "quiet": True}
    run = rivals.train("mnist5k", micro_batches="auto", out=tmp_path / "run", **settings)
    assert run.info["config"]["micro_batches"] == 4
