"""Settings from a file: TOML, JSON, or the ``run.json`` of an earlier run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.base.typed_json import parse_json, read_small_file


def read_config(path: Path, known: Iterable[str]) -> dict[str, Any]:
    """The settings of a file by name; hyphens and underscores in names are alike.

    Args:
        path: A ``.toml`` or ``.json`` file: one table of settings, or a ``run.json``.
        known: The settings that may be there.

    Raises:
        UserError: it cannot be read, is not a table, or holds a name that is not known.
    """
    try:
        content = read_small_file(path)
    except FileNotFoundError:
        raise UserError(f"there is no configuration '{path}': give a TOML or JSON file") from None
    table = _parse(path, content)
    if not isinstance(table, dict):
        raise UserError(f"the configuration '{path}' holds a {type(table).__name__}: write one table of settings")
    names = list(known)
    if "config" in table and "command" in table:
        table = _of_run(path, content)
        if "recipe" not in names:  # of a command without recipes, whose run names its kind
            table.pop("recipe", None)
    settings = {name.replace("-", "_"): value for name, value in table.items()}
    for name in settings:
        if name not in names:
            raise unknown(f"setting in '{path}'", name, names)
    return settings


def _parse(path: Path, content: bytes) -> Any:
    if path.suffix == ".json":
        return parse_json(content, Any, f"the configuration '{path}'", "correct it")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the configuration '{path}' is not valid TOML: {reason}: correct it") from None


class RunSettings(TypedDict):
    """What ``run.json`` holds of the settings of its run."""

    source: NotRequired[dict[str, Any]]
    config: dict[str, Any]
    data_options: NotRequired[dict[str, Any]]
    run_options: NotRequired[dict[str, Any]]
    recipe: NotRequired[str | None]
    seed: NotRequired[int | None]


def _of_run(path: Path, content: bytes) -> dict[str, Any]:
    """The settings of a run, from its ``run.json``."""
    run = parse_json(content, RunSettings, f"'{path}'", "restore it, or write a configuration by hand")
    settings = run.get("source", {}) | run["config"] | run.get("data_options", {}) | run.get("run_options", {})
    named = {"recipe": run.get("recipe"), "seed": run.get("seed")}
    return settings | {name: value for name, value in named.items() if value is not None}
