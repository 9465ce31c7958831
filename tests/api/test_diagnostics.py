"""What `rivals doctor` tells, and what a shell makes of `rivals completion`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.commands import RunRivals
from rivals import api
from rivals.api import diagnostics
from rivals.cli.commands import COMMANDS
from rivals.cli.completion import SHELLS
from rivals.data.builtin import DATASETS


def test_doctor_names_every_part_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_rivals: RunRivals
) -> None:
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    status, out, _ = run_rivals("doctor", "--json")
    rows = {row["part"]: row for row in json.loads(out)}
    assert status == 0 and {"python", "torch", "cpu", "device auto", "bf16"} <= rows.keys()
    assert {f"data {name}" for name in DATASETS} <= rows.keys()
    assert "img_align_celeba.zip" in rows["data celeba"]["advice"]
    assert "weights-inception" in rows["weights inception"]["advice"]
    place = tmp_path / "rivals" / "weights" / "vgg16-397923af.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    again = {row["part"]: row for row in api.doctor()}
    assert again["weights vgg16"] == {"part": "weights vgg16", "state": str(place), "advice": ""}


def test_doctor_asks_for_the_extras_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "requires", lambda _: ['nowhere-to-be-found>=1; extra == "hub"', "numpy>=2"])
    rows = {row["part"]: row for row in api.doctor()}
    assert rows["extra hub"]["state"] == "missing nowhere-to-be-found"
    assert rows["extra hub"]["advice"] == "pip install 'rivals[hub]'"


@pytest.mark.parametrize("shell", list(SHELLS))
def test_every_command_and_flag_is_completed(shell: str, run_rivals: RunRivals) -> None:
    status, script, _ = run_rivals("completion", shell)
    assert status == 0
    assert all(name.split()[0] in script for name in COMMANDS)
    assert "learning" not in script  # words of the help's prose
    for flag in ("augment-target", "eps", "weights", "n-real"):
        assert flag in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=30)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "wanted"), [("ha", ["harden"]), ("harden --meth", ["--method"]), ("export --fo", ["--format"])]
)
def test_bash_completes(words: str, wanted: list[str], run_rivals: RunRivals) -> None:
    _, script, _ = run_rivals("completion", "bash")
    typed = ["rivals", *words.split()]
    line = " ".join(f"'{word}'" for word in typed)
    ask = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(typed) - 1}; _rivals; printf "%s\\n" "${{COMPREPLY[@]}}"'
    found = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.split() == wanted


def test_an_unknown_shell_gets_one_line(run_rivals: RunRivals) -> None:
    status, _, err = run_rivals("completion", "bsh")
    assert status == 2 and "did you mean bash" in err
