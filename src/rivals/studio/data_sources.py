"""The data that the page may read: built-in data sets, and what was named when the studio was started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rivals.base.errors import UserError
from rivals.data.builtin import DATASETS


@dataclass(frozen=True)
class DataSources:
    """The data that the page may read.

    Attributes:
        paths: Folders and zips, absolute.
    """

    paths: tuple[str, ...] = ()

    @classmethod
    def named(cls, given: Iterable[str]) -> DataSources:
        """The folders and zips that were named at the start.

        Raises:
            UserError: one is not there.
        """
        found = []
        for each in given:
            path = Path(each)
            if not path.exists():
                raise UserError(f"there is no folder or zip '{each}': check the path given to --data")
            found.append(str(path.resolve()))
        return cls(tuple(dict.fromkeys(found)))

    @property
    def choices(self) -> list[str]:
        """All of them: names first."""
        return [*DATASETS, *self.paths]

    def find(self, name: str) -> str:
        """The one of that name, as runs record it: a name, or that of a folder or zip; ``name`` itself if none is."""
        return next((path for path in self.paths if name in (Path(path).name, Path(path).stem)), name)

    def check(self, data: str) -> str:
        """``data``, if the page may read it.

        Raises:
            UserError: it may not.
        """
        if data not in self.choices:
            raise UserError(
                f"'{data}' is not among the data of this studio: choose others, or start it with --data and its folder"
            )
        return data
