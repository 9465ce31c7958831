"""``push`` and ``pull``: a network to a Hugging Face repository and back, or to a folder with the same files."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rivals.api.common.network_io import ROLES, load, save_network
from rivals.base.errors import UserError
from rivals.base.files import expand_user, explain_os_errors, whole_folder, write_atomically
from rivals.base.run_folder import FIX, Run
from rivals.base.typed_json import read_json

SHOWN = 16  # samples of a generator on its model card
PATTERNS = ("*.safetensors", "*.json", "*.md", "*.png")  # what is downloaded; nothing that could run code
REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
CARD, PICTURE = "README.md", "samples.png"
# By role: the task as the Hub calls it, and how the network is used.
TASKS = {
    "generator": ("unconditional-image-generation", "images = net.sample(16, seed=0)  # uint8 (16, C, H, W)"),
    "classifier": ("image-classification", "logits = net(images)  # images (n, C, H, W) in [0, 1]"),
    "translator": ("image-to-image", "outputs = net(images)  # images (n, C, H, W) in [0, 1]"),
    "encoder": ("image-feature-extraction", "latents = net(images * 2 - 1)  # images (n, C, H, W) in [0, 1]"),
    "perturber": (
        "image-to-image",
        "x_adv = net(images, labels)  # in [0, 1]; or: rivals attack MODEL --attack generator:{place}",
    ),
}


def push(run: str, target: str, *, private: bool = False) -> dict[str, Any]:
    """Share a network: weights, how to build it, a model card and, for a generator, a sample grid.

    Args:
        run: A run folder, or a network's .safetensors file.
        target: USER/NAME of a repository on the Hugging Face Hub, created if it does not exist; or a folder, written
            with a leading ./, ../, / or ~.
        private: Make a new repository private.

    Returns:
        Where it went, and the files.

    Raises:
        UserError: there is no network, the folder is not empty, a package is missing, or the Hub refuses.
    """
    net = load(run)
    if not _is_repository(target):
        folder = expand_user(target)
        with explain_os_errors(folder):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise UserError(f"'{target}' exists already and is not empty: choose another folder")
        with whole_folder(folder) as aside:
            files = _write_files(net, aside, str(folder), results_of(run))
        return {"folder": str(folder), "files": files}
    hub = _hub()
    with tempfile.TemporaryDirectory() as place:
        files = _write_files(net, Path(place), target, results_of(run))
        try:
            api = hub.HfApi()
            api.create_repo(target, private=private, exist_ok=True)
            api.upload_folder(repo_id=target, folder_path=place, commit_message="Upload by rivals push")
        except Exception as error:  # the client's own kinds, and those of whatever carries it
            raise UserError(
                f"the Hub refuses '{target}': {_reason(error)}: log in with 'hf auth login', or check the name"
            ) from None
    return {"repository": target, "files": files}


def pull(source: str, *, out: Path | None = None, revision: str | None = None) -> dict[str, Any]:
    """Fetch a network that :func:`push` shared. Only weights, JSON, Markdown and PNG files are downloaded.

    Args:
        source: USER/NAME of a repository on the Hugging Face Hub; or a folder with the same files, written with a
            leading ./, ../, / or ~.
        out: Folder to put it into; NAME by default.
        revision: A branch, tag or commit of the repository.

    Returns:
        Where it is, and the files. ``rivals.load`` of the folder gives the network.

    Raises:
        UserError: the folder exists, a package is missing, the Hub has no such repository, or it holds no network.
    """
    hosted = _is_repository(source)
    folder = Path(out or source.rstrip("/").rpartition("/")[2])
    if folder.exists():
        raise UserError(f"'{folder}' exists already: remove it or choose another with --out")
    with tempfile.TemporaryDirectory() as aside:
        found = Path(aside)
        if hosted:
            hub = _hub()
            try:
                hub.snapshot_download(source, revision=revision, local_dir=aside, allow_patterns=list(PATTERNS))
            except Exception as error:  # as above
                raise UserError(
                    f"the Hub does not give '{source}': {_reason(error)}: check the name, or 'hf auth login'"
                ) from None
        elif revision is not None:
            raise UserError(f"--revision {revision} is for repositories, and '{source}' is a folder: leave it out")
        else:
            found = expand_user(source)
            if not found.is_dir():
                raise UserError(f"no folder at '{source}': name one that 'rivals push' wrote")
        files = sorted(
            path for pattern in PATTERNS for path in found.glob(pattern) if path.is_file() and not path.is_symlink()
        )
        networks = [path for path in files if path.stem in ROLES and path.suffix == ".safetensors"]
        if not networks:
            raise UserError(f"'{source}' holds no network of ours: it has no {' or '.join(ROLES)}.safetensors")
        for path in networks:
            load(path)  # or say what is wrong
        with whole_folder(folder) as copies, explain_os_errors(folder):
            for path in files:
                shutil.copyfile(path, copies / path.name)
    return {"folder": str(folder), "files": [path.name for path in files]}


def _is_repository(text: str) -> bool:
    return REPOSITORY.fullmatch(text) is not None and not text.startswith((".", "/", "~"))


def results_of(run: str | Path) -> list[tuple[str, float]]:
    """Metrics that were measured of a run's network, by name; none for a single file.

    Of a generator the scores in ``scores.json``; of a classifier its test accuracy and, if it was hardened, its robust
    accuracy under the attack that chose it; of a translator its judgement on held-out images.
    """
    from rivals.api.training.saved_state import measured_of_saved
    from rivals.reports.sections.before_after import NUMBERS, BeforeAfterFile
    from rivals.reports.sections.scores import FILE, ScoresFile

    folder = Path(run)
    if not (folder / "run.json").exists():
        return []
    accuracy = measured_of_saved(Run(folder), "classifier", "accuracy/test".__eq__)
    found = [("accuracy", float(value)) for value in accuracy.values()]
    if (folder / NUMBERS).exists():
        compared = read_json(folder / NUMBERS, BeforeAfterFile, FIX)
        protocol, after = compared["protocol"], compared["sides"][-1]
        eps = f"{protocol['norm']} {protocol['eps'][-1]:g}"
        name = f"robust accuracy ({protocol['attack']}, {eps}, {protocol['n']:,} images)"
        found.append((name, float(after["robust"]["value"])))
    if "translates" in (info := Run(folder).info) and (judged := info.get("results")):
        found += [(f"{key} ({judged['n']:,} images)", value) for key, value in judged["values"]["translator"].items()]
    if (folder / FILE).exists():
        scores = read_json(folder / FILE, ScoresFile, FIX)["values"]
        found += [(score["name"], value) for score in scores if (value := score.get("value")) is not None]
    return found


def _write_files(net: Any, folder: Path, title: str, results: list[tuple[str, float]]) -> list[str]:
    """Write weights, JSON, model card and sample grid into a folder; returns the names of the files."""
    from rivals.reports import image_grid

    role = net.spec["role"]
    name = "generator" if role == "perturber" else role  # as in a run, where it is the generator of the game
    save_network(
        net, folder / f"{name}.safetensors", {k: v for k, v in net.about.items() if k not in ("format", "spec")}
    )
    if role == "generator":
        image_grid.save_png(image_grid.make_grid(net.sample(SHOWN, seed=0).numpy()), folder / PICTURE)
    write_atomically(folder / CARD, _card(net, role, title, results).encode())
    return sorted(path.name for path in folder.iterdir())


def _card(net: Any, role: str, title: str, results: list[tuple[str, float]]) -> str:
    """The model card: metadata with the measured metrics as the Hub reads them (``model-index``), then text."""
    kind, use = TASKS[role]
    article = "An" if role == "encoder" else "A"
    spec = {key: value for key, value in net.spec.items() if key not in ("mean", "std")}
    about = {key: value for key, value in net.about.items() if key not in ("format", "spec", "classes", "recipe")}
    rows = [f"| {key} | {json.dumps(value)} |" for key, value in (spec | about).items()]
    rows += [f"| {name} | {value:.4g} |" for name, value in results]
    data = str(net.about.get("data", "unknown"))
    metrics = [{"type": name.split()[0].lower(), "name": name, "value": value} for name, value in results]
    dataset = {"name": data, "type": re.sub(r"[^\w.-]+", "-", data) or "unknown"}
    entries = [{"task": {"type": kind}, "dataset": dataset, "metrics": metrics}]
    # JSON, which is YAML too.
    index = [f"model-index: {json.dumps([{'name': Path(title).name, 'results': entries}])}"] if metrics else []
    return "\n".join(
        [
            *("---", "library_name: rivals", f"pipeline_tag: {kind}", "tags: [rivals, adversarial-learning]"),
            *(*index, "---"),
            *("", f"# {Path(title).name}", ""),
            f"{article} {role} made with [Rivals](https://pypi.org/project/rivals/), adversarial learning for PyTorch.",
            *(["", f"![{SHOWN} samples]({PICTURE})"] if role == "generator" else []),
            *("", "```python", "import rivals", ""),
            f'net = rivals.load("{Path(title).name}")  # the folder, after: rivals pull {title}',
            *(use.format(place=Path(title).name), "```", "", "| | |", "|---|---|", *rows, ""),
        ]
    )


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise UserError("the Hub needs a package that is not installed: pip install 'rivals[hub]'") from None
    return huggingface_hub


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
