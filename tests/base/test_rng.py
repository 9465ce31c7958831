"""Random streams as functions of their keys."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rivals.base import rng


@given(st.integers(), st.integers())
def test_each_key_has_its_own_stream(a, b):
    assert 0 <= rng.derive(a, b) < 2**63
    assert (rng.derive(a) == rng.derive(b)) == (a == b)
    assert torch.equal(torch.randn(3, generator=rng.generator(a, "x")), torch.randn(3, generator=rng.generator(a, "x")))


def test_reseeding_begins_the_global_stream_anew_as_torch_would():
    with torch.random.fork_rng():
        draws = []
        for seed in (
            lambda: rng.reseed(torch.device("cpu"), 7, "turn"),
            lambda: torch.manual_seed(rng.derive(7, "turn")),
        ):
            torch.rand(5)
            seed()
            draws.append(torch.rand(3))
    assert torch.equal(*draws)
