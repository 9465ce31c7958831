"""Checkpoints on disk."""

import os
import re
import threading

import pytest
import torch

from helpers.small_games import affine_game, small_game, states_equal
from rivals.base.errors import UserError
from rivals.game import checkpoint
from rivals.game.callbacks import Progress
from rivals.game.checkpoint import Checkpoints
from rivals.game.loop import _is_finite


def test_two_checkpoints_are_kept_and_a_broken_one_is_skipped(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="no intact checkpoint"):
        checkpoints.load()
    for step in range(4):
        checkpoints.save(step, {"x": torch.full((2,), float(step))}, {"note": "n"})
    assert [path.name for path in checkpoints.paths()] == ["000000000002.safetensors", "000000000003.safetensors"]
    (tmp_path / ".000000000004.safetensors.123.tmp").write_bytes(b"left by a kill")
    checkpoints.save(3, {"x": torch.full((2,), 3.0)}, {"note": "n"})
    checkpoints.wait()
    assert not list(tmp_path.glob(".*"))
    checkpoints.paths()[-1].write_bytes(b"half")
    tensors, facts = checkpoints.load()
    assert facts == {"note": "n", "step": 2}
    assert tensors["x"].tolist() == [2, 2]


def test_a_checkpoint_is_of_the_moment_although_the_game_goes_on_meanwhile(tmp_path):
    game, checkpoints = affine_game([]), Checkpoints(tmp_path)
    before = {key: value.clone() for key, value in game.state().items()}
    checkpoints.save_game(game, Progress(7, 28, 0.5, 1.0))
    with torch.no_grad():
        for player in game.players.values():
            for weight in player.net.parameters():
                weight.add_(1)
    tensors, facts = checkpoints.load()
    assert facts["step"] == 7 and states_equal(tensors, before)


def test_a_checkpoint_that_cannot_be_written_is_told_at_the_next_and_leaves_the_last_good_one(tmp_path):
    game, checkpoints = affine_game([]), Checkpoints(tmp_path / "run")
    checkpoints.save_game(game, Progress(1, 4, 0.1, 1.0))
    checkpoints.wait()
    (tmp_path / "run" / f".{2:012d}.safetensors.{os.getpid()}.tmp").mkdir()  # in the way of the second
    checkpoints.save_game(game, Progress(2, 8, 0.2, 2.0))
    with pytest.raises(UserError, match="cannot write"):
        checkpoints.save_game(game, Progress(3, 12, 0.3, 3.0))
    assert checkpoints.load()[1]["step"] == 1


def flip_a_bit(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(tmp_path, capsys, place):
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(step, {"x": torch.full((50,), float(step))}, {})
    flip_a_bit(checkpoints.paths()[-1], place)
    tensors, facts = checkpoints.load()
    assert facts["step"] == 10 and tensors["x"].unique().tolist() == [10]
    (line,) = capsys.readouterr().err.splitlines()
    assert "000000000020.safetensors' is damaged" in line and "of step 10, is taken" in line


def test_without_an_intact_checkpoint_there_is_one_line(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, {"x": torch.ones(9)}, {})
    for path in checkpoints.paths():
        flip_a_bit(path, 0.9)
    with pytest.raises(UserError, match=r"no intact checkpoint in .*02.safetensors' is damaged.*--out"):
        checkpoints.load()
    assert capsys.readouterr().err == ""


def test_a_checkpoint_with_weights_that_are_not_finite_or_of_another_step_is_not_taken(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(4, {"x": torch.ones(2)}, {})
    checkpoints.save(5, {"x": torch.tensor([1.0, torch.nan])}, {})
    checkpoints.wait()
    (tmp_path / f"{6:012d}.safetensors").write_bytes(checkpoints.paths()[0].read_bytes())
    (tmp_path / "mine.safetensors").write_bytes(b"not ours")
    assert checkpoints.load()[1]["step"] == 4
    renamed, spoiled = capsys.readouterr().err.splitlines()
    assert "not the checkpoint of its step" in renamed and "1 NaN or infinite values in 'x'" in spoiled


def test_the_checkpoint_of_another_network_is_refused_in_one_line(tmp_path):
    game, _ = small_game("mlp")
    for other in (small_game("quick")[0], small_game("mlp", generator_widths=(9,))[0], small_game("mlp", ema=0)[0]):
        with pytest.raises(UserError, match="the checkpoint is of another run, since") as refusal:
            game.restore(other.state())
        assert re.fullmatch(".+", str(refusal.value))


def test_the_end_of_a_process_pushes_out_no_checkpoint_and_the_next_one_replaces_it(tmp_path):
    checkpoints = Checkpoints(tmp_path)

    def steps(step, end=False):
        checkpoints.save(step, {"x": torch.ones(1)}, {}, end=end)
        return [path.stem.lstrip("0") for path in checkpoints.paths()]

    steps(1), steps(2)
    assert steps(3, end=True) == ["1", "2", "3-end"]
    assert checkpoints.load()[1]["step"] == 3
    assert steps(4, end=True) == ["1", "2", "4-end"]
    checkpoints.drop_end()
    assert checkpoints.load()[1]["step"] == 2
    assert steps(2, end=True) == ["1", "2"]
    steps(4, end=True)
    assert steps(5) == ["2", "5"]


def test_a_checkpoint_that_is_still_being_written_keeps_the_best_one_before_it(tmp_path, monkeypatch):
    own = Checkpoints(tmp_path / "own")
    best = Checkpoints(tmp_path / "best", others=own)
    saved, go = checkpoint.save_tensors, threading.Event()

    def slow(path, *rest):
        if path.parent.name == "own":
            assert go.wait(30)
        saved(path, *rest)

    monkeypatch.setattr(checkpoint, "save_tensors", slow)
    best.save(1, {"x": torch.ones(1)}, {})
    best.wait()
    own.save(2, {"x": torch.ones(1)}, {})
    threading.Timer(0.2, go.set).start()  # the next two are better, and on the disk before that one is
    for step in (3, 4):
        best.save(step, {"x": torch.ones(1)}, {})
    assert [int(path.stem) for path in best.paths()] == [1, 3, 4]


def test_a_checkpoint_holds_the_state_as_it_was_when_saved(tmp_path):
    """The copies of one checkpoint are the memory of the next, whatever changes its shape or memory layout."""
    checkpoints = Checkpoints(tmp_path)
    states = [
        {"w": torch.randn(3, 4, 2, 2), "n": torch.tensor(3)},
        {"w": torch.randn(3, 4, 2, 2).to(memory_format=torch.channels_last), "n": torch.tensor(4)},
        {"w": torch.randn(2, 2, dtype=torch.float64), "n": torch.tensor(5), "more": torch.ones(1)},
        {"w": torch.randn(2, 2, dtype=torch.float64), "n": torch.tensor(6)},
    ]
    for step, state in enumerate(states):
        saved = {key: value.clone() for key, value in state.items()}
        checkpoints.save(step, state, {})
        for value in state.values():
            value.zero_()  # training goes on while the thread writes
        loaded, facts = checkpoints.load()
        assert facts["step"] == step and loaded.keys() == saved.keys()
        assert all(torch.equal(loaded[key], saved[key]) for key in saved)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_one_value_that_is_not_finite_is_found(bad, dtype):
    values = torch.arange(6).to(dtype)
    assert _is_finite(values) and _is_finite(values[:0])
    if dtype.is_floating_point:
        values[4] = bad
        assert not _is_finite(values)
