"""The entry for RobustBench: its fields, and when there is none."""

import pytest

from rivals.reports.robustbench import entry

# The fields of RobustBench's ModelInfo, and one that its files have beside them.
FIELDS = {
    *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"),
    *("eps", "clean_acc", "reported", "corruptions_acc", "autoattack_acc", "footnote", "unreliable"),
}


def info(**changes):
    protocol = {"attack": "autoattack", "norm": "Linf", "eps": [4 / 255, 8 / 255], "votes": 1, "data": "cifar10"}
    protocol |= {"split": "test", "of": 10000, "seed": 0, "versions": {"rivals": "0.1.0"}, **changes}
    results = {"clean": {"value": 0.93684}, "robust": {"value": 0.7}, "n": 1000, "alarms": [], "protocol": protocol}
    return {"state": "finished", "model": {"architecture": "resnet 32-64"}, "results": results}


def test_the_fields_are_those_of_robustbench_with_its_spelling():
    found = entry(info())
    assert set(found) <= FIELDS
    wanted = {"dataset": "cifar10", "architecture": "resnet 32-64", "eps": "8/255", "number_forward_passes": 1}
    wanted |= {"clean_acc": "93.68", "autoattack_acc": "70.00", "reported": "70.00", "unreliable": False}
    assert found | wanted == found
    assert "1,000 of 10,000 test images (seed 0) under autoattack in Linf" in found["footnote"]
    assert [key for key, value in found.items() if value is None] == [
        *("link", "name", "authors", "additional_data", "venue")
    ]


def test_another_attack_is_no_autoattack_and_alarms_make_it_unreliable():
    other = info(attack="autoattack-swift", norm="L2", eps=[0.5])
    other["results"]["alarms"] = [{"alarm": "zero-gradient"}]
    found = entry(other)
    assert "autoattack_acc" not in found
    assert (found["reported"], found["eps"], found["unreliable"]) == ("70.00", "0.5", True)


@pytest.mark.parametrize("change", [{"norm": "L1"}, {"target": "cat"}, {"masked": 0.5}, {"defense": "jpeg"}])
def test_what_no_leaderboard_has_makes_no_entry(change):
    assert entry(info(**change)) is None


def test_an_unfinished_run_makes_no_entry():
    assert entry(info() | {"state": "interrupted"}) is None
