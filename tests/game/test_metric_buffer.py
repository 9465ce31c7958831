"""Values on their way from the device to the host."""

import math

import pytest
import torch

from rivals.game.metric_buffer import MetricBuffer, NonFinite


def test_buffer_returns_values_in_order_without_waiting(monkeypatch):
    buffer = MetricBuffer(seconds=100.0)
    buffer.add(1, 4, {"loss/generator": torch.tensor(1.5)})
    buffer.add(2, 8, {"loss/generator": torch.tensor(2.5), "penalty/r1": torch.tensor(0.25)})

    class Event:
        asked = waited = 0

        def query(self):
            self.asked += 1
            return False

        def synchronize(self):
            self.waited += 1

    event = Event()
    buffer._rows[0].event = event
    assert list(buffer.arrived()) == []  # the second is here, but records keep their order
    assert (event.asked, event.waited) == (1, 0)
    first, second = buffer.drain()
    assert event.waited == 1
    assert first["loss/generator"] == 1.5
    assert "penalty/r1" not in first
    assert second["penalty/r1"] == 0.25
    assert second["seconds"] >= 100


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("loss/generator/pair", "the generator's loss, part 'pair',"),
        ("penalty/r1", "the penalty r1"),
        ("grad_norm/discriminator", "the discriminator's gradient"),
    ],
)
def test_buffer_names_the_value_that_is_not_finite(key, words):
    buffer = MetricBuffer()
    buffer.add(7, 28, {key: torch.tensor(math.inf)})
    with pytest.raises(NonFinite) as caught:
        list(buffer.arrived())
    assert words in str(caught.value)
    assert "step 7" in str(caught.value)
