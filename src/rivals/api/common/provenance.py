"""What a run was made with: versions, hardware, the state of the code."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.base.numerics import numerics

if TYPE_CHECKING:
    import torch


def run_facts(command: str, device: torch.device) -> dict[str, Any]:
    """The entries of ``run.json`` that every command writes: when, how, with what and on what a run was made."""
    program = Path(sys.argv[0])  # the command, or what `python -m rivals` and `torchrun -m rivals` run
    by_command = program.name == "rivals" or (program.name, program.parent.name) == ("__main__.py", "rivals")
    words = shlex.join(["rivals", *sys.argv[1:]]) if by_command else ""  # empty from Python
    return {
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": words,
        "device": str(device),
        "versions": versions(),
        "hardware": hardware(device),
        "numerics": numerics(device),
        "git": git_state(),
    }


def changes_since(info: Mapping[str, Any], device: torch.device) -> str | None:
    """What to say if a run is resumed with other versions, or on another machine, than in its ``run.json``."""
    exact = numerics(device)
    earlier = {name: value for name, value in info.get("numerics", {}).items() if name in exact}
    before = {**info.get("versions", {}), **info.get("hardware", {}), **earlier, "device": info.get("device")}
    now = {**versions(), **hardware(device), "device": str(device)}
    now |= {name: exact[name] for name in earlier}
    names = [name for name in before | now if name != "cores" and before.get(name) != now.get(name)]
    if not names:
        return None
    changed = ", ".join(f"{name} {before.get(name, 'none')} is now {now.get(name, 'none')}" for name in names)
    return f"not as the run began: {changed}: it goes on, but need not end with the same bytes"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose numbers matter."""
    names = ("rivals", "torch", "torchvision", "numpy", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def hardware(device: torch.device) -> dict[str, Any]:
    """The processor, its cores, the threads in use, and the accelerator if the run is on one."""
    import torch

    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        found["accelerator"] = torch.cuda.get_device_name(device)
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_state() -> dict[str, Any] | None:
    """Commit of the working folder's repository and whether it has changes; None outside of one."""

    def git(*words: str) -> str:
        return subprocess.run(("git", *words), capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
