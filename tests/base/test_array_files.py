"""Arrays of a file that may be damaged: all there, of the declared kind and one length, or one line."""

import io
import re

import numpy as np
import pytest

from rivals.base.array_files import FLAGS, IMAGES, INTEGERS, NUMBERS, read_arrays
from rivals.base.errors import UserError

COLUMNS = {"label": INTEGERS, "eps": NUMBERS, "robust": FLAGS, "x": IMAGES}
GOOD = {
    "label": np.arange(3),
    "eps": np.zeros(3, np.float32),
    "robust": np.ones(3, bool),
    "x": np.zeros((3, 1, 2, 2)),
    "other": np.array("more"),
}


def packed(**changes):
    file = io.BytesIO()
    np.savez(file, **{name: values for name, values in (GOOD | changes).items() if values is not None})
    return file.getvalue()


def test_declared_arrays_are_returned(tmp_path):
    (tmp_path / "a.npz").write_bytes(packed())
    arrays = read_arrays(tmp_path / "a.npz", COLUMNS, "")
    assert list(arrays) == list(COLUMNS) and all((arrays[name] == GOOD[name]).all() for name in arrays)
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "b.npz", COLUMNS, "")


@pytest.mark.parametrize(
    "content, says",
    [
        (packed(label=None), "no array 'label'"),
        (packed(label=np.zeros(3)), "'label' is float64 of shape (3,)"),
        (packed(label=np.array(["a", "b", "c"])), "'label' is <U1"),
        (packed(label=np.array(5)), "'label' is int64 of shape ()"),
        (packed(eps=np.zeros((3, 1))), "'eps' is float64 of shape (3, 1)"),
        (packed(robust=np.ones(2, bool)), "'robust' is bool of shape (2,)"),
        (packed(x=np.full((3, 1), np.nan)), "'x' has values that are not finite"),
        (packed(x=np.zeros(())), "'x' is float64 of shape ()"),
        (packed(x=np.array([{}], object)), "cannot be read"),
        (packed()[:-200], "cannot be read"),
        (packed().replace(b"'shape': (3,", b"'shape': (3**99,"), "cannot be read"),
        (packed().replace(b"'shape': (3,), ", b"'shape': (39999999999999,), "), "cannot be read"),
        (b"", "cannot be read"),
        (b"PK\x05\x06" + bytes(18), "no array 'label'"),
        (b"\x93NUMPY\x01\x00v\x00" + bytes(200), "cannot be read"),
    ],
)
def test_damaged_file_is_one_line(tmp_path, content, says):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(says)) as error:
        read_arrays(tmp_path / "a.npz", COLUMNS, "make it anew")
    assert "\n" not in str(error.value) and str(error.value).endswith(": make it anew")
