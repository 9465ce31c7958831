"""Differentiable changes to images: their statistics, their randomness, their gradients."""

import torch

from rivals.base.schedules import Schedule
from rivals.data.augment import InstanceNoise


def test_instance_noise_has_the_scheduled_deviation_and_fades():
    noise = InstanceNoise(Schedule.parse("0.5 -> 0 in 100 images"))
    images = torch.zeros(64, 3, 16, 16)
    torch.manual_seed(0)
    assert abs(noise(images, 0).std().item() - 0.5) < 0.01
    assert abs(noise(images, 50).std().item() - 0.25) < 0.01
    assert torch.equal(noise(images, 100), images)


def test_instance_noise_lets_gradients_through_twice():
    noise = InstanceNoise(Schedule.parse(0.1))
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def seen(x):
        torch.manual_seed(0)
        return noise(x, 0)

    assert torch.autograd.gradcheck(seen, images)
    assert torch.autograd.gradgradcheck(lambda x: seen(x).square(), images)
