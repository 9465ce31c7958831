"""What `rivals doctor` tells, and what a shell makes of `rivals completion`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rivals import api
from rivals.api import doctoring
from rivals.cli import VERBS
from rivals.completion import SHELLS
from rivals.data.names import NAMES

Command = Callable[[list[str]], tuple[int, str, str]]


def test_doctor_names_every_part_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    status, out, _ = command(["doctor", "--json"])
    rows = {row["part"]: row for row in json.loads(out)}
    assert status == 0 and {"python", "torch", "cpu", "device auto", "bf16"} <= rows.keys()
    assert {f"data {name}" for name in NAMES} <= rows.keys()
    assert "img_align_celeba.zip" in rows["data celeba"]["advice"]
    assert "weights-inception" in rows["weights inception"]["advice"]
    place = tmp_path / "rivals" / "weights" / "vgg16-397923af.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    again = {row["part"]: row for row in api.doctor()}
    assert again["weights vgg16"] == {"part": "weights vgg16", "state": str(place), "advice": ""}


def test_doctor_asks_for_the_extras_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctoring, "requires", lambda _: ['nowhere-to-be-found>=1; extra == "hub"', "numpy>=2"])
    rows = {row["part"]: row for row in api.doctor()}
    assert rows["extra hub"]["state"] == "missing nowhere-to-be-found"
    assert rows["extra hub"]["advice"] == "pip install 'rivals[hub]'"


@pytest.mark.parametrize("shell", list(SHELLS))
def test_every_verb_and_flag_is_completed(shell: str, command: Command) -> None:
    status, script, _ = command(["completion", shell])
    assert status == 0
    assert all(verb in script for verb in VERBS)
    assert "learning" not in script  # words of the help's prose
    for flag in ("augment-target", "eps", "weights", "n-real"):
        assert flag in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=30)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "wanted"), [("ha", ["harden"]), ("harden --ep", ["--eps"]), ("export --fo", ["--format"])]
)
def test_bash_completes(words: str, wanted: list[str], command: Command) -> None:
    _, script, _ = command(["completion", "bash"])
    typed = ["rivals", *words.split()]
    line = " ".join(f"'{word}'" for word in typed)
    ask = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(typed) - 1}; _rivals; printf "%s\\n" "${{COMPREPLY[@]}}"'
    found = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True, timeout=30)
    assert found.stdout.split() == wanted


def test_an_unknown_shell_gets_one_line(command: Command) -> None:
    status, _, err = command(["completion", "bsh"])
    assert status == 2 and "did you mean bash" in err
