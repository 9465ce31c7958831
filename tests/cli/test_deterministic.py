"""``--deterministic`` for every command that computes numbers, and what their records say of it."""

import json

import pytest
import torch

from helpers.commands import TINY, call_main

EYES = ("--metrics", "fd", "-n", "30", "--n-real", "30", "--quiet")


def info(run):
    return json.loads((run / "run.json").read_text())


@pytest.mark.usefixtures("empty_folder")
def test_every_command_has_it_records_it_and_undoes_it(tmp_path, photos, monkeypatch):
    seen = []
    switch = torch.use_deterministic_algorithms
    monkeypatch.setattr(
        torch, "use_deterministic_algorithms", lambda mode, **how: (seen.append(mode), switch(mode, **how))
    )
    short = ("--until", "2 steps", "--batch-size", "8", "--quiet", "--deterministic", "--precision", "fp32")
    gan, model, hard = (tmp_path / name for name in ("gan", "model", "hard"))
    assert call_main(("train", photos, "--recipe", "quick", *TINY, *short, "--out", gan)) == 0
    assert call_main(("classify", photos, "--widths", "4", "8", *short, "--out", model)) == 0
    net = ("--net", "resnet", "--widths", "4", "8", "--method", "fgsm")
    assert call_main(("harden", photos, *net, *short, "--out", hard)) == 0
    for run in (gan, model, hard):
        numerics = {"deterministic": True, "tf32": "off", "precision": "fp32", "reduction": "tree"}
        assert info(run)["numerics"] == numerics
        assert "deterministic" in (run / "report.html").read_text()
    look = ("--split", "all", "-n", "2", "--quiet")
    attack = ("attack", model, photos, "--attack", "fgsm", "--no-alarms")
    certify = ("certify", model, photos, "--samples", "20", "--alpha", "0.1", "--no-upper")
    for words in (attack, (*attack, "--deterministic"), (*certify, "--deterministic")):
        out = tmp_path / f"{words[0]}-{len(words)}"
        assert call_main((*words, *look, "--out", out)) == 0
        found = info(out)
        assert found["numerics"] == {"deterministic": "--deterministic" in words, "tf32": "off"}
        assert found["numerics"].items() <= found["results"]["protocol"].items()
    eyes = ("--extractor", f"classifier:{model}")
    assert call_main(("score", gan, photos, *eyes, *EYES, "--split", "all", "--deterministic", "--out", tmp_path)) == 0
    [value] = json.loads((tmp_path / "scores.json").read_text())["values"]
    assert (value["deterministic"], value["tf32"]) == (True, "off")
    assert seen == [True, False] * 6
    assert not torch.are_deterministic_algorithms_enabled()
