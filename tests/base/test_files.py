"""Atomic writes."""

import errno
import os
import stat

import pytest

from rivals.base.errors import UserError
from rivals.base.files import expand_user, whole_folder, write_atomically


def test_a_write_replaces_the_file_and_leaves_no_temporary_one(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_two_processes_that_write_a_file_at_once_do_not_meet(tmp_path, monkeypatch):
    path, sync = tmp_path / "file", os.fsync

    def write_another(descriptor):
        monkeypatch.setattr(os, "fsync", sync)
        with monkeypatch.context() as other:
            other.setattr(os, "getpid", lambda: 0)
            write_atomically(path, b"other")
        assert path.read_bytes() == b"other"

    monkeypatch.setattr(os, "fsync", write_another)
    write_atomically(path, b"own")
    assert path.read_bytes() == b"own"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_reported_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("refusal", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_does_not_sync_folders_is_written_to(tmp_path, monkeypatch, refusal):
    def sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "fsync", sync)
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_path_through_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "file" / "x", b"")


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "new" / "folder"
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as place:
        (place / "one").write_text("1")
        raise KeyboardInterrupt
    assert not list(folder.parent.iterdir())
    folder.mkdir()
    with whole_folder(folder) as place:  # also where it is there and empty
        (place / "one").write_text("1")
        assert not list(folder.iterdir())
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    assert (folder / "one").read_text() == "1"


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"), whole_folder(tmp_path / "file" / "folder"):
        pytest.fail("it cannot be written into")


@pytest.mark.parametrize("path", ["~nobody-here/x", "~nobody-here"])
def test_unknown_users_are_one_line(path):
    with pytest.raises(UserError, match=f"'{path}' names a user"):
        expand_user(path)
