"""Devices by name."""

import pytest
import torch

from rivals.base import devices, rng
from rivals.base.errors import UserError


def test_an_unavailable_device_is_refused():
    assert devices.pick("cpu").type == "cpu"
    assert devices.pick("auto")
    with pytest.raises(UserError, match="device 'toaster' cannot be used here"):
        devices.pick("toaster")


def test_a_device_that_fails_is_refused_with_the_cause(monkeypatch):
    def fail(size, device):
        raise RuntimeError("CUDA driver version is insufficient.\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch, "zeros", fail)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    for name, fix in (("auto", "take cpu$"), ("cuda", "take cpu or auto$")):
        with pytest.raises(UserError, match=rf"'cuda' cannot be used here \(CUDA driver .* insufficient\): {fix}"):
            devices.pick(name)


def test_a_failed_allocation_becomes_a_user_error():
    with pytest.raises(UserError, match="not enough memory"), devices.explain_out_of_memory():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    with pytest.raises(UserError, match="not enough memory"), devices.explain_out_of_memory():
        raise RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB, max allowed: 1.00 GB)")
    with pytest.raises(RuntimeError, match="another"), devices.explain_out_of_memory():
        raise RuntimeError("another error")


class TwoGpus:
    """What torch would know of a machine with two GPUs."""

    def __init__(self):
        self.current = 0
        self.default_generators = [torch.Generator(), torch.Generator()]

    def current_device(self):
        return self.current


@pytest.fixture
def gpus(monkeypatch):
    found, zeros = TwoGpus(), torch.zeros

    def allocate(size, device):
        if torch.device(device).index not in (None, 0, 1):
            raise RuntimeError("invalid device ordinal")
        return zeros(size)

    monkeypatch.setattr(torch, "zeros", allocate)
    monkeypatch.setattr(torch, "get_device_module", lambda device: found)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda index: setattr(found, "current", index))
    return found


@pytest.mark.parametrize(("name", "picked"), [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0")])
def test_each_process_of_a_machine_has_its_own_gpu(gpus, monkeypatch, name, picked):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.pick(name) == torch.device(picked)
    assert gpus.current == (picked == "cuda:1")


def test_more_processes_than_gpus_are_refused(gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    for name in ("cuda", "auto"):
        with pytest.raises(UserError, match="process 2 of this machine has no device of its own, as 2 can be seen"):
            devices.pick(name)


def test_one_gpu_for_all_processes_is_refused(gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--device cuda:0 is one device, for 2 processes: give --device cuda"):
        devices.pick("cuda:0")


def test_a_launcher_may_show_each_process_its_gpu_alone(gpus, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.pick("cuda") == torch.device("cuda:0")


def test_the_random_state_of_the_named_gpu_is_seeded_and_no_other(gpus):
    before = gpus.default_generators[0].get_state()
    state = torch.get_rng_state()
    rng.reseed(torch.device("cuda:1"), 3, "turn")
    torch.set_rng_state(state)
    assert gpus.default_generators[1].initial_seed() == rng.derive(3, "turn")
    assert torch.equal(gpus.default_generators[0].get_state(), before)


def test_a_device_without_float64_is_refused_for_bounds():
    devices.check_float64(torch.device("cpu"), "bounds")
    with pytest.raises(UserError, match=r"float64, which the device mps does not have: add --device cpu"):
        devices.check_float64(torch.device("mps"), "bounds")
