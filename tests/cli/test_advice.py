"""Advice in messages names flags that the command has."""

import ast
import re
from pathlib import Path

import pytest

import rivals
from rivals.cli.commands import COMMANDS
from rivals.cli.parsing import long_flags

SOURCE = Path(rivals.__file__).parent
READERS = ["train", "classify", "harden", "translate", "attack", "certify", "score", "score --equilibrium", "data pack"]
TRAINING = ["train", "classify", "harden", "translate"]
SAID_BY = {  # which commands print the messages of a file or a folder; the first that fits
    "api/demo_run.py": ["demo"],
    "api/equilibrium/discriminator_eval.py": ["train"],
    "api/equilibrium/": ["score --equilibrium"],
    "api/latent_space.py": ["explore"],
    "api/onnx_export.py": ["export"],
    "api/reporting.py": ["report"],
    "api/robustness/masking_probe.py": ["attack"],
    "api/scoring/": ["score"],
    "api/training/adversarial.py": ["harden"],
    "api/training/classifier.py": ["classify", "harden"],
    "api/training/advgan.py": ["train"],
    "api/training/encoder.py": ["train"],
    "api/common/robust_game.py": ["train"],
    "api/training/gan.py": ["train"],
    "api/training/robgan.py": ["train"],
    "api/training/train.py": ["train"],
    "api/training/preflight.py": ["train"],
    "api/training/job.py": TRAINING,
    "api/translation/": ["translate"],
    "attacks/": ["attack"],
    "data/pairs.py": ["translate"],
    "data/pack.py": ["data pack"],
    "data/prune.py": ["data prune"],
    "data/": READERS,
    "game/health_monitor.py": ["train"],
    "game/robust_checkpoint.py": ["harden"],
    "game/translation_health.py": ["translate"],
    "metrics/gradient_masking.py": ["attack"],
    "metrics/robust_accuracy.py": ["attack"],
    "recipes/adversarial.py": ["harden"],
    "recipes/classifiers.py": ["classify", "harden"],
    "recipes/against.py": ["train"],
    "recipes/gan.py": ["train"],
    "recipes/inverting.py": ["train"],
    "recipes/translation.py": ["translate"],
    "studio/server.py": ["studio"],
}
OTHERS = {  # flags that the message names with another command
    "api/common/provenance.py": {"--porcelain"},  # git's
    "api/robustness/defense.py": {"--invert"},  # "a run of rivals train with"
    "api/equilibrium/game_context.py": {"--hold-out"},  # "or train with"
    "api/latent_space.py": {"--conditional"},  # "train it with"
    "base/launcher.py": {"--standalone"},  # torchrun's
    "data/tar_index.py": {"--sparse"},  # tar's
    "attacks/advgan.py": {"--against", "--condition"},  # "train it with"
    "extractors/efficientnet_lite0.py": {"--force-reinstall"},  # pip's
    "studio/tab_compare.py": {"--equilibrium"},
}


def flags_of(command):
    found = set(long_flags(COMMANDS[command].flags([])))
    return found | {f"--no-{flag.removeprefix('--')}" for flag in found} | {"--help"}


def messages(path):
    """The texts of a file, without docstrings and the constants that are no sentences."""
    tree = ast.parse(path.read_text())
    documented = [
        each for each in ast.walk(tree) if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
    ]
    docstrings = {id(each.value) for each in documented}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("folder", sorted(path.name for path in SOURCE.iterdir() if path.is_dir()))
def test_messages_name_only_flags_of_the_commands_that_print_them(folder):
    anywhere = set().union(*map(flags_of, COMMANDS))
    wrong = []
    for path in (SOURCE / folder).rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        if folder == "cli" or name == "reports/plots/style.py":
            continue  # the parser's own, and variables of CSS
        commands = next((said_by for place, said_by in SAID_BY.items() if name.startswith(place)), [])
        known = set.intersection(*map(flags_of, commands)) if commands else anywhere
        for text in messages(path):
            named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text))
            wrong += [(name, flag, text) for flag in named - known - OTHERS.get(name, set())]
    assert not wrong
