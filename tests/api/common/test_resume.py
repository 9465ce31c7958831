"""Folders of runs that are not named: each start has its own. What a resumed run may not change."""

from pathlib import Path

import pytest

from rivals.api.common.resume import reserve_folder, resolve_options
from rivals.base.errors import UserError
from rivals.base.run_folder import Run
from rivals.recipes import AttackConfig, DataOptions

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_two_starts_at_once_have_a_folder_each_and_an_empty_one_is_removed():
    with reserve_folder(None, "a-quick") as first, reserve_folder(None, "a-quick") as second:
        assert [first, second] == [Path("runs/a-quick-1"), Path("runs/a-quick-2")]
        (second / "run.json").write_text("{}")
    assert [path.name for path in Path("runs").iterdir()] == ["a-quick-2"]
    with reserve_folder("mine/r", "a-quick") as named:
        assert named == Path("mine/r") and not named.exists()


def test_a_file_where_the_runs_should_be_is_refused_in_one_line():
    Path("runs").write_text("")
    with (
        pytest.raises(UserError, match="cannot write runs/a-1: a part of the path is a file"),
        reserve_folder(None, "a"),
    ):
        pass


def test_a_link_to_nothing_where_the_runs_should_be_is_refused_in_one_line():
    Path("runs").symlink_to("unmounted")
    with pytest.raises(UserError, match="cannot write runs/a-1: "), reserve_folder(None, "a"):
        pass


def test_an_option_that_the_run_does_not_have_is_blamed_before_what_it_would_need():
    plain = AttackConfig(), DataOptions()
    options = {"config": plain[0].written(), "data_options": plain[1].written()}
    content = {"source": {"model": "m", "data": "mnist5k"}, "data": {"hash": "1"}, "model": {"hash": "2"}}
    Run.create("r", {"command": "attack", **options, **content})
    with pytest.raises(UserError, match="cannot resume with another eot_average"):
        resolve_options("attack", "r", True, {"eot_average": "losses"}, *plain)
