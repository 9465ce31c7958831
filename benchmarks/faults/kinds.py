"""The nine kinds of input: each mangles a copy of something in the world, and names a command that reads it."""

from __future__ import annotations

import os
import socket
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.faults import mutators
from benchmarks.faults.judge import Case
from benchmarks.faults.words import command_line
from benchmarks.faults.world import World

Maker = Callable[[Random, World, Path], Case]
PACK = ("data", "pack")


def images(rng: Random, world: World, home: Path) -> Case:
    """A folder with a damaged image, an odd name, or what is no file at all."""
    folder = world.copy(rng.choice(("mixed", "photos")), home)
    path = rng.choice(sorted(path for path in folder.rglob("*.*") if path.is_file()))
    what = path.name
    match rng.randrange(8):
        case 0:
            path.rename(path.with_name(f"{_file_name(rng)}{path.suffix}"))
        case 1:
            below = path.parent / _file_name(rng)
            below.mkdir()
            path.rename(below / path.name)
        case 2:
            what = _special(rng, path)
        case 3:
            other = rng.choice(sorted((world.home / "mixed").iterdir()))
            path.write_bytes(other.read_bytes())
        case _:
            path.write_bytes(mutators.mangle_bytes(rng, path.read_bytes()))
    return Case(f"images: {what}", (*PACK, str(folder), "out.zip", *_reading(rng)))


def _file_name(rng: Random) -> str:
    return rng.choice(mutators.NAMES).replace("/", "|")[:80]


def _special(rng: Random, path: Path) -> str:
    """Something that is no file, or leads to none, in place of an image."""
    kind = rng.choice(("fifo", "socket", "device", "nowhere", "loop", "folder", "unlisted fifo"))
    place = path.with_suffix(".txt") if kind == "unlisted fifo" else path
    place.unlink(missing_ok=True)
    if kind.endswith("fifo"):
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            here = Path.cwd()
            os.chdir(place.parent)  # the name of a socket has at most 108 bytes
            bound.bind(place.name)
            os.chdir(here)
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to({"device": "/dev/zero", "nowhere": "/nowhere/at-all.png"}.get(kind, place.name))
    return kind


def _reading(rng: Random) -> tuple[str, ...]:
    size = ("--size", "8", "--crop") if rng.random() < 0.5 else ()
    return size + (("--skip-bad",) if rng.random() < 0.5 else ())


def archives(rng: Random, world: World, home: Path) -> Case:
    """A damaged or odd zip."""
    path = world.copy("photos.zip", home)
    path.write_bytes(mutators.mangle_zip(rng, path.read_bytes()))
    return Case("zip", (*PACK, "photos.zip", "out.zip", *_reading(rng)))


def shards(rng: Random, world: World, home: Path) -> Case:
    """Shards of which one is damaged or odd."""
    folder = world.copy("shards", home)
    path = rng.choice(sorted(folder.iterdir()))
    mangle = mutators.mangle_json if path.suffix == ".json" else mutators.mangle_tar
    path.write_bytes(mangle(rng, path.read_bytes()))
    return Case(f"shards: {path.name}", (*PACK, "./shards", "out.zip", *_reading(rng)))


def descriptions(rng: Random, world: World, home: Path) -> Case:
    """A dataset.json that does not describe its images, in a zip or a folder."""
    with zipfile.ZipFile(world.home / "photos.zip") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries["dataset.json"] = mutators.mangle_json(rng, entries["dataset.json"])
    if rng.random() < 0.5:
        with zipfile.ZipFile(home / "described.zip", "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        return Case("dataset.json in a zip", (*PACK, "described.zip", "out.zip"))
    for name, content in entries.items():
        path = home / "described" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Case("dataset.json in a folder", (*PACK, "./described", "out.zip"))


RUNS = ("gan", "classifier", "attacked", "certified")


def run_json(rng: Random, world: World, home: Path) -> Case:
    """A run whose run.json was edited."""
    return _run_case(rng, world, home, "run.json", mutators.mangle_json)


def metrics(rng: Random, world: World, home: Path) -> Case:
    """A run whose records were edited."""
    return _run_case(rng, world, home, "metrics.jsonl", mutators.mangle_lines)


def _run_case(rng: Random, world: World, home: Path, name: str, mangle: Callable[[Random, bytes], bytes]) -> Case:
    (run,) = rng.choices(RUNS, (1, 1, 4, 4))  # the latter two are read ten times as fast
    path = world.copy(run, home) / name
    path.write_bytes(mangle(rng, path.read_bytes()))
    return Case(f"{name} of {run}", _reader(rng, home, run))


def _reader(rng: Random, home: Path, run: str) -> Sequence[str] | Callable[[], object]:
    """What reads a run: its report, the studio, or the command that continues it."""
    choice = rng.random()
    if choice < 0.3:
        return partial(_show, home, run)
    if choice < 0.4:
        return ("attack", run, "./nothing", "--config", f"{run}/run.json")
    if choice < 0.6 and run == "certified":
        return ("certify", "--resume", "--out", run, "--quiet")
    if choice < 0.75 and run == "attacked":
        return ("attack", "--resume", "--out", run, "--quiet")
    if choice < 0.5:
        return ({"gan": "train"}.get(run, "classify"), "--resume", "--out", run, "--quiet")
    return ("report", run)


def _show(home: Path, run: str) -> None:
    """What the studio does with a run."""
    from rivals.studio.run_store import RunStore

    store = RunStore(home)
    store.names()
    store.networks("classifier")
    history = store.history(run)
    for key in history.keys:
        history.curve(key)
        history.last(key)


def side_files(rng: Random, world: World, home: Path) -> Case:
    """A run whose examples, grids or figures were edited."""
    (run,) = rng.choices(("gan", "attacked"), (1, 5))
    folder = world.copy(run, home)
    names = {"attacked": ("examples.npz",), "gan": ("samples/000000008.png", "nearest.png", "curves.png")}[run]
    path = folder / rng.choice(names)
    mangle = mutators.mangle_npz if path.suffix == ".npz" else mutators.mangle_bytes
    if path.exists():
        path.write_bytes(mangle(rng, path.read_bytes()))
    words = ("attack", "--resume", "--out", run, "--quiet") if run == "attacked" and rng.random() < 0.4 else None
    return Case(f"{path.name} of {run}", words or ("report", run))


def weights(rng: Random, world: World, home: Path) -> Case:
    """A network or a checkpoint whose tensors or header are damaged."""
    run = rng.choice(("gan", "classifier"))
    folder = world.copy(run, home)
    if rng.random() < 0.2:
        path = rng.choice(sorted((folder / "checkpoints").glob("*.safetensors")))
        path.write_bytes(mutators.mangle_safetensors(rng, path.read_bytes()))
        words = ("train" if run == "gan" else "classify", "--resume", "--out", run, "--until", "3 steps", "--quiet")
        return Case(f"checkpoint of {run}", words)
    (path,) = folder.glob("*.safetensors")
    before = path.read_bytes()
    path.write_bytes(mutators.mangle_safetensors(rng, before))
    out = home / f"out.{path.suffix}"
    words = ("export", run, "--format", "safetensors", "--out", str(out))
    return Case(f"weights of {run}", words, lambda: out.read_bytes() != before)


def networks(rng: Random, world: World, home: Path) -> Case:
    """A network whose description is not that of its weights."""
    run = rng.choice(("gan", "classifier"))
    folder = world.copy(run, home)
    (weights,) = folder.glob("*.safetensors")
    path = weights.with_suffix(".json")
    path.write_bytes(mutators.mangle_json(rng, path.read_bytes()))
    commands: list[tuple[str, ...]] = [
        ("pull", f"./{run}", "--out", "out"),
        ("export", run, "--format", "safetensors", "--out", "out.safetensors"),
        ("push", run, "./out"),
    ]
    if run == "gan":
        commands += [("sample", run, "-n", "2", "--grid", "out.png")] * 2
    else:
        attack = ("attack", run, str(world.home / "photos"), "--attack", "fgsm", "-n", "2", "--no-alarms", "--quiet")
        commands += [(*attack, "--save", "none", "--out", "out")] * 2
    return Case(f"description of {run}", rng.choice(commands))


def decoded(rng: Random, world: World, home: Path) -> Case:
    """A cache of decoded images that is damaged."""
    cache = world.copy("cache", home)
    resized = (about.parent for about in cache.rglob("about.json") if b"3, 9, 9]" in about.read_bytes())
    path = rng.choice(sorted(path for entry in resized for path in entry.iterdir()))
    mangle = mutators.mangle_json if path.suffix == ".json" else mutators.mangle_bytes
    path.write_bytes(mangle(rng, path.read_bytes()))
    words = (*PACK, str(world.home / "photos"), "out.zip", "--size", "9")
    return Case(f"cache: {path.name}", words, lambda: not _same_zip(home / "out.zip", world.home / "again.zip"))


def _same_zip(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


KINDS: dict[str, tuple[Maker, ...]] = {
    "images in folders": (images,),
    "zips, shards, dataset.json": (archives, shards, descriptions),
    "run.json": (run_json,),
    "metrics.jsonl": (metrics,),
    "side files (npz, png)": (side_files,),
    "safetensors, checkpoints": (weights,),
    "network .json": (networks,),
    "decoded cache": (decoded,),
    "command-line values": (command_line,),
}
