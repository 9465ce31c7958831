"""Batches that a generator makes: new images for every batch, the same for the same place, on its device."""

import pytest
import torch

from helpers.pretend_device import PRETEND, Crossings
from rivals.data.generated_batches import GeneratedBatches, Judge, best_of_each_class
from rivals.nets.factory import build_generator

LABELS = torch.tensor([2, 0, 1])


def make_generator(device="cpu"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_generator("mlp", size=8, channels=1, classes=3, latent_dim=4, widths=(8,)).to(device).eval()


def batches(generator=None, batch_size=8, **how):
    generator = generator or make_generator()
    device = next(generator.parameters()).device
    return GeneratedBatches(generator.generate_on_device, 4, LABELS, batch_size, device=device, **{"seed": 0, **how})


def test_a_batch_is_a_function_of_its_place_and_none_comes_twice():
    first, again = batches(), batches()
    drawn = [first.draw(index)[0] for index in range(4)]
    assert torch.equal(again.draw(2)[0], drawn[2])
    assert len({image.numpy().tobytes() for images in drawn for image in images}) == 32
    assert not torch.equal(batches(seed=1).draw(2)[0], drawn[2])
    assert not torch.equal(first.draw(2, stream=1)[0], drawn[2])
    assert drawn[0].dtype == torch.uint8 and drawn[0].shape == (8, 1, 8, 8)


def test_classes_take_turns_and_have_the_labels_of_the_run():
    drawn = batches(batch_size=6, micro_batches=2)
    labels = [drawn.draw(index, part=part)[1].tolist() for index in range(2) for part in range(2)]
    assert labels == [[2, 0, 1]] * 4
    assert not torch.equal(drawn.draw(0, part=0)[0], drawn.draw(0, part=1)[0])
    asked = []

    def generate(z, classes):
        asked.append(classes.tolist())
        return torch.zeros(len(z), 1, 8, 8, dtype=torch.uint8)

    GeneratedBatches(generate, 4, LABELS, 4, seed=0, device=torch.device("cpu")).draw(1)
    assert asked == [[1, 2, 0, 1]]


def test_images_are_flipped_and_moved():
    plain = batches(batch_size=64).draw(0)[0]
    flipped = batches(batch_size=64, flip=True).draw(0)[0]
    same = (flipped == plain).flatten(1).all(1)
    assert 16 < same.sum() < 48
    assert torch.equal(torch.where(same[:, None, None, None], plain, plain.flip(3)), flipped)
    moved = batches(batch_size=64, shift=1).draw(0)[0]
    padded = torch.nn.functional.pad(plain, (1,) * 4)
    windows = torch.stack([padded[..., i : i + 8, j : j + 8] for i in range(3) for j in range(3)])
    assert (windows == moved).flatten(2).all(2).any(0).all()


@pytest.mark.parametrize("bf16", [True, False])
def test_a_pass_in_bf16_around_it_changes_nothing(bf16):
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        images = batches().draw(0)[0]
    assert torch.equal(images, batches().draw(0)[0])


def test_on_a_device_images_stay_there():
    drawn = batches(make_generator(PRETEND), flip=True, shift=1)
    with Crossings() as log:
        images, labels = drawn.draw(0)
    assert (images.device, labels.device.type) == (PRETEND, "cpu")
    kept = [line for line in log.lines if "non_blocking=True" not in line]  # small numbers go there, nothing comes back
    assert kept == []


def test_the_best_of_each_class_are_kept_in_their_order():
    scores = torch.tensor([5.0, 1.0, 0.0, 2.0, 9.0, 3.0, 7.0, 8.0])
    classes = torch.arange(8) % 3
    # Of 0: 5, 2 and 7, two are wanted; of 1: 1, 9 and 8, two; of 2: 0 and 3, one.
    assert best_of_each_class(scores, classes, 5).tolist() == [0, 4, 5, 6, 7]
    assert best_of_each_class(scores, classes, 8).tolist() == list(range(8))
    assert best_of_each_class(scores, torch.zeros(8, dtype=torch.int64), 2).tolist() == [4, 7]


def test_a_judge_chooses_among_more_images_of_the_same_classes():
    seen = []

    def bright(images, classes):
        seen.append(images.flatten(1).float().mean(1))
        return seen[-1]

    judged = batches(batch_size=60, judge=Judge(bright, 0.4)).draw(3)
    plain = batches(batch_size=60).draw(3)
    assert len(seen[0]) == 150
    assert torch.equal(judged[1].sort().values, plain[1].sort().values)
    means = judged[0].flatten(1).float().mean(1)
    assert means.mean() > seen[0].mean() + 0.5 * seen[0].std()
