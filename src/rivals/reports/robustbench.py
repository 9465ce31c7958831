"""The result of ``rivals attack`` in the fields of RobustBench's model_info files (Croce et al. 2021)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rivals.base.files import write_atomically
from rivals.base.run_folder import Record, Run
from rivals.reports.formatting import in_255ths

FILE = "robustbench.json"
NORMS = ("Linf", "L2")
ELSEWHERE = ("target", "surrogate", "masked", "defense", "eps_scale")  # what none of the leaderboards has


def write_entry(run: Run) -> Path | None:
    """Write ``robustbench.json`` into the folder of a finished run, if a leaderboard has a place for its result."""
    found = entry(run.info)
    if found is None:
        return None
    path = run.folder / FILE
    write_atomically(path, (json.dumps(found, indent=2) + "\n").encode())
    return path


def entry(info: Record) -> Record | None:
    """The entry for the content of a ``run.json``; None for a threat model that no leaderboard has.

    Accuracies are text, in percent. What the run cannot know is null, for the authors to fill in: ``link``, ``name``
    (of the paper), ``authors``, ``venue`` and ``additional_data``. ``autoattack_acc`` is of the standard AutoAttack
    alone; the accuracy under another attack is ``reported``. ``unreliable`` says that there were alarms.
    """
    results: Record = info.get("results") or {}
    protocol: Record = results.get("protocol") or {}
    if info.get("state") != "finished" or any(protocol.get(key) for key in ELSEWHERE):
        return None
    found: Record = {"link": None, "name": None, "authors": None, "additional_data": None}
    found |= {"number_forward_passes": protocol.get("votes", 1), "dataset": protocol["data"], "venue": None}
    found["architecture"] = (info.get("model") or {}).get("architecture")
    if protocol.get("attack") == "corruptions":
        clean = results["clean"]
        found |= {"eps": None, "clean_acc": None if clean is None else _percent(clean["value"])}
        accuracies = {"corruptions_acc": _percent(results["accuracy"])}
        n, under = results["corruptions"][0]["severities"][0]["of"], f"{len(results['corruptions'])} corruptions"
    elif protocol.get("norm") in NORMS:
        accuracy = _percent(results["robust"]["value"])
        standard = protocol["attack"] == "autoattack"
        found |= {"eps": _radius(protocol["eps"][-1]), "clean_acc": _percent(results["clean"]["value"])}
        accuracies = {"reported": accuracy, **({"autoattack_acc": accuracy} if standard else {})}
        n, under = results["n"], f"{protocol['attack']} in {protocol['norm']}"
    else:
        return None
    split = protocol.get("split")
    images = f"{n:,} of {protocol['of']:,} {f'{split} ' if split in ('train', 'test') else ''}images"
    rivals = (protocol.get("versions") or {}).get("rivals", "")
    footnote = f"Evaluated on {images} (seed {protocol['seed']}) under {under} by Rivals {rivals}".strip() + "."
    return {**found, **accuracies, "footnote": footnote, "unreliable": bool(results.get("alarms"))}


def _percent(share: Any) -> str:
    return f"{100 * share:.2f}"


def _radius(eps: float) -> str:
    """As RobustBench writes it: 8/255 or 0.5."""
    return f"{eps * 255:.4g}/255" if in_255ths(eps) else f"{eps:.6g}"
