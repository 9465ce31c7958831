"""The state of an evaluation, made from the records of its steps, and its report."""

import json

import numpy as np

from rivals.metrics.robust_accuracy import CLEAN, EvalState


def step(stage, eps_index, fooled, fooled_8bit=(), **counts):
    zero = {"n_attacked": 0, "n_unverified": 0, "forwards": 0, "backwards": 0, "stage_seconds": 0.0}
    record = {"stage": stage, "eps_index": eps_index, "fooled": list(fooled), "fooled_8bit": list(fooled_8bit)}
    return record | zero | counts


def report_of(state, **changes):
    facts = {"alarms": [], "notes": [], "protocol": {"attack": "a", "norm": "Linf"}, "seconds": 1.0}
    return state.report(["cat", "dog"], **facts | changes)


def test_the_report_adds_up_the_records():
    state = EvalState(np.array([0, 1, 0, 1, 0, 1]), [0.1, 0.2])
    state.update(step(CLEAN, 0, [0], [0]))
    state.update(step("one", 1, [1, 2], [1], n_attacked=5, forwards=10, backwards=5, stage_seconds=0.5))
    assert state.still_robust(0, 6).tolist() == [3, 4, 5]
    assert state.still_robust(2, 5).tolist() == [3, 4]
    state.update(step("two", 1, [], n_attacked=3, n_unverified=1, forwards=30))
    state.update(step("one", 2, [3], [3], n_attacked=3, forwards=6, backwards=3, stage_seconds=0.25))
    state.done = 6
    report = report_of(state)
    curve = [(eps, accuracy.count, accuracy.of) for eps, accuracy in report.curve]
    assert curve == [(0.0, 5, 6), (0.1, 3, 6), (0.2, 2, 6)]
    assert (report.clean.count, report.robust.count) == (5, 2)
    assert [(each.name, each.clean.count, each.robust.count, each.clean.of) for each in report.classes] == [
        ("cat", 2, 1, 3),
        ("dog", 3, 1, 3),
    ]
    one = report.stages["one"]
    assert (one.attacked, one.fooled, one.forwards, one.backwards, one.seconds) == (8, 3, 16, 8, 0.75)
    assert report.stages["two"].unverified == 1
    assert json.loads(json.dumps(report.as_dict()))["robust"]["count"] == 2
    assert report.robust_8bit is report.as_dict()["robust_8bit"] is None  # 2 was fooled in floats, and at 0.1 alone
    for text in (
        "clean accuracy",
        "83.3%",
        "in 8 bits      unknown",
        "fooled 3 of 8",
        "1 unverified",
        "no sign of gradient masking",
    ):
        assert text in str(report)


def test_images_that_are_not_done_do_not_count():
    state = EvalState(np.zeros(6, np.int64), [0.1])
    state.update(step(CLEAN, 0, [0, 5], [0, 5]))
    state.done = 3
    report = report_of(state)
    assert (report.n, report.clean.count) == (3, 2)


def test_an_interrupted_chunk_counts_neither_in_the_naive_figure_nor_in_the_curve_of_queries():
    state = EvalState(np.zeros(8, np.int64), [0.1])
    state.update(step(CLEAN, 0, [0]))
    state.update(step("naive", 1, [1], n_attacked=3, queries=[5]))
    state.update(step("pgd", 1, [2], n_attacked=2))
    state.done = 4
    state.update(step("naive", 1, [4, 5, 6, 7], n_attacked=4, queries=[1, 2, 3, 4]))
    report = report_of(state, naive="naive")
    assert (report.clean.count, report.naive.count, report.robust.count) == (3, 2, 1)
    assert [(made, each.count) for made, each in report.queries["naive"]][-1] == (5, 2)


def test_the_verdict_distinguishes_masking_from_a_weak_attack_and_from_no_check():
    state = EvalState(np.zeros(2, np.int64), [0.1])
    state.done = 2
    masked, weak = {"alarm": "zero-gradient", "message": "so flat"}, {"alarm": "randomized", "message": "so random"}
    assert report_of(state, alarms=[masked]).verdict == "possible gradient masking: so flat"
    assert report_of(state, alarms=[masked, weak]).verdict.endswith("so flat (and 1 more alarm)")
    assert report_of(state, alarms=[weak]).verdict == "the attack may be weak here: so random"
    assert "not checked for gradient masking (--no-alarms)" in report_of(state, protocol={"alarms": False}).verdict
    unprobed = {"alarms": True, "probed": 0}
    assert report_of(state, protocol=unprobed).verdict.startswith("not checked for gradient masking: none of the first")
    assert report_of(state, alarms=[weak], protocol=unprobed).verdict.startswith("the attack may be weak here")
    assert report_of(state, protocol={"alarms": True, "probed": 1}).verdict == "no sign of gradient masking"


def test_robust_in_8_bits_is_known_where_all_that_fails_to_survive_was_fooled_at_the_largest_radius():
    state = EvalState(np.array([0, 1, 0, 1, 0, 1]), [0.1, 0.2])
    state.update(step(CLEAN, 0, [0], [0]))
    state.update(step("one", 1, [1, 2], [1, 2]))
    state.update(step("one", 2, [3, 4], [3]))
    state.done = 6
    report = report_of(state)
    assert (report.robust.count, report.robust_8bit.count) == (1, 2)
    assert "in 8 bits      33.3%" in str(report)
