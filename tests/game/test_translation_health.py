"""The alarms of image translation, on records made by hand."""

import math

import pytest

from rivals.game.callbacks import Progress
from rivals.game.health_monitor import WINDOW, YOUNG
from rivals.game.translation_health import ADVICE, TranslationMonitor
from rivals.losses.gan import make_loss

LEVEL = make_loss("relativistic").equilibrium["loss/discriminator"]


def turn(step, loss_d=LEVEL, d_real=0.5, d_fake=0.4, **terms):
    record = {"images": step, "step": step, "seconds": 0.0, "loss/discriminator": loss_d, "d_real": d_real}
    terms = {f"loss/generator/{name}": value for name, value in terms.items()}
    return record | {"d_fake": d_fake, "loss/generator": sum(terms.values())} | terms


def grid(step, **values):
    return {"images": step, "step": step, "seconds": 0.0, "sample_grid": "x", **values}


def feed(monitor, records):
    return [(each["alarm"], each["raised"]) for record in records for each in monitor.on_record(record)]


def test_a_run_that_is_well_raises_no_alarm():
    """Its L1 falls from that of gray images and scatters, as the losses of single batches do."""
    turns = (
        turn(i, loss_d=LEVEL * (1 + 0.5 * math.sin(i)), gan=0.003, l1=0.05 + 0.2 * 0.99**i + 0.02 * math.cos(i))
        for i in range(4 * WINDOW)
    )
    assert feed(TranslationMonitor(LEVEL), turns) == []
    grids = [grid(i * YOUNG, diversity=0.9, change=0.4) for i in range(8)]
    assert feed(TranslationMonitor(LEVEL), grids) == []


def test_a_discriminator_that_wins_is_reported_whatever_the_other_terms_of_the_translator_are():
    for l1 in (0.0, 0.3):
        monitor = TranslationMonitor(LEVEL)
        assert feed(monitor, [turn(i, loss_d=0.01, gan=0.03, l1=l1) for i in range(WINDOW)]) == [
            ("discriminator-wins", True)
        ]
        assert "targets from translated images" in monitor.active["discriminator-wins"]["message"]


@pytest.mark.parametrize(("d_fake", "expected"), [(0.9, [("generator-wins", True)]), (0.1, [])])
def test_the_translator_wins_only_if_its_images_score_higher_than_targets(d_fake, expected):
    """Its loss cannot tell: it has other terms."""
    turns = [turn(i, loss_d=1.5 * LEVEL, d_real=0.5, d_fake=d_fake, gan=9.0, l1=0.3) for i in range(WINDOW)]
    assert feed(TranslationMonitor(LEVEL), turns) == expected


def test_outputs_that_are_alike_are_reported():
    monitor = TranslationMonitor(LEVEL)
    assert feed(monitor, [grid(i * YOUNG, diversity=0.02) for i in range(4)]) == [("mode-collapse", True)]
    assert "2% as diverse as targets" in monitor.active["mode-collapse"]["message"]


def test_three_copies_of_the_input_in_a_row_are_reported_until_it_is_changed_again():
    values = [0.01, 0.01, 0.01, 0.2, 0.01, 0.01, 0.01, 0.05, 0.07, 0.08, 0.09]
    monitor = TranslationMonitor(None)
    found = feed(monitor, [grid(i * YOUNG, change=value) for i, value in enumerate(values)])
    assert found == [("copies-input", True), ("copies-input", False)]
    assert feed(TranslationMonitor(None), [grid(i, change=0.0) for i in range(YOUNG)]) == []  # too early


def test_a_term_explodes_above_where_it_began_and_three_times_its_lowest():
    falls = [turn(i, l1=0.2 if i < WINDOW else 0.04) for i in range(3 * WINDOW)]
    higher = [turn(i, l1=0.19) for i in range(WINDOW)]  # 4.75 times the lowest, and below where it began
    explodes = [turn(i, l1=0.4) for i in range(WINDOW)]
    over = [turn(i, l1=0.05) for i in range(WINDOW)]
    monitor = TranslationMonitor(LEVEL)
    assert feed(monitor, falls + higher) == []
    assert feed(monitor, explodes) == [("loss-explodes", True)]
    assert "loss/generator/l1" in monitor.active["loss-explodes"]["message"]
    assert feed(monitor, over) == [("loss-explodes", False)]


def test_without_a_discriminator_a_loss_of_one_term_is_watched_too():
    losses = [0.1 if i < 2 * WINDOW else 2.0 for i in range(3 * WINDOW)]
    turns = [{"images": i, "step": i, "seconds": 0.0, "loss/generator": value} for i, value in enumerate(losses)]
    assert feed(TranslationMonitor(LEVEL), turns) == [("loss-explodes", True)]


def test_a_translator_that_begins_well_may_triple_its_loss():
    """Where --weights names one, or bicubic interpolation is the start, a discriminator raises L1."""
    monitor = TranslationMonitor(LEVEL)
    assert feed(monitor, [turn(i, l1=0.02 if i < WINDOW else 0.055) for i in range(3 * WINDOW)]) == []


def test_a_discriminator_explodes_at_ten_times_the_loss_of_guessing_and_adversarial_terms_never():
    assert feed(TranslationMonitor(LEVEL), [turn(i, loss_d=11 * LEVEL) for i in range(WINDOW)]) == [
        ("loss-explodes", True)
    ]
    rising = [turn(i, gan=0.01 if i < WINDOW else 5.0) for i in range(3 * WINDOW)]
    assert feed(TranslationMonitor(LEVEL), rising) == []
    wasserstein = TranslationMonitor(make_loss("wasserstein").equilibrium["loss/discriminator"])
    assert feed(wasserstein, [turn(i, loss_d=-90.0 * i) for i in range(WINDOW)]) == []


def test_a_monitor_restored_from_the_log_equals_the_one_that_was_never_stopped():
    lived, records = TranslationMonitor(LEVEL), []
    for i in range(3 * WINDOW):
        record = turn(i, loss_d=0.01 if i > WINDOW else LEVEL, l1=0.1 if i < WINDOW else 1.0)
        records += [record, *lived.on_record(record)]
    for i in range(3):
        record = grid(3 * WINDOW + i * YOUNG, change=0.0)
        records += [record, *lived.on_record(record)]
    recalled = TranslationMonitor(LEVEL)
    feed(recalled, records[:WINDOW])  # what it saw of a part that a kill undid
    recalled.on_restore(records, Progress(0, 0, 0, 0))
    expected = {"discriminator-wins", "loss-explodes", "copies-input"}
    assert recalled.active.keys() == lived.active.keys() == expected <= ADVICE.keys()
    more = [turn(i, l1=0.05) for i in range(2 * WINDOW)]
    assert feed(lived, more) == feed(recalled, more)
