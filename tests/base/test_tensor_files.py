"""Tensors on disk: damage of any kind is found when they are read."""

import os

import pytest
import torch

from rivals.base.tensor_files import DamagedFile, check_finite, load_tensors, read_tensors, save_tensors, shape_mismatch

TENSORS = {
    "weight": torch.linspace(-1, 1, 6).view(2, 3),
    "count": torch.tensor(7),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "none": torch.zeros(0, 2),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {"step": 3, "scale": 0.5})
    return path


def test_tensors_and_facts_come_back(file):
    tensors, facts = load_tensors(file)
    assert facts == {"step": 3, "scale": 0.5}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[key], value) and tensors[key].dtype == value.dtype for key, value in TENSORS.items())


def test_the_memory_format_of_a_tensor_does_not_change_its_digest(tmp_path):
    images = torch.arange(24.0).view(1, 2, 3, 4)
    for name, values in (("a", images), ("b", images.to(memory_format=torch.channels_last))):
        save_tensors(tmp_path / name, {"x": values}, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert torch.equal(load_tensors(tmp_path / "b")[0]["x"], images)


def test_every_flipped_bit_is_found(file):
    for at, byte in enumerate(file.read_bytes()):
        for wrong in (byte ^ 1 << at % 8, byte):  # of each byte another bit, put right again
            with file.open("r+b") as opened:
                opened.seek(at)
                opened.write(bytes([wrong]))
            if wrong != byte:
                with pytest.raises(DamagedFile):
                    load_tensors(file)
    load_tensors(file)


def test_files_that_are_cut_short_or_too_long_are_found(file):
    content = file.read_bytes()
    for damaged in (*(content[:end] for end in range(0, len(content), 7)), content + b"\0", content * 2, b"\0" * 99):
        file.write_bytes(damaged)
        with pytest.raises(DamagedFile, match=str(file)):
            load_tensors(file)


def test_a_pipe_or_a_folder_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "nothing"):
        with pytest.raises(DamagedFile, match="is not a file"):
            load_tensors(path)


def test_a_file_without_digest_is_no_checkpoint_but_can_be_read(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "published.safetensors"
    save_file({"x": torch.ones(2)}, path)
    assert read_tensors(path)[0]["x"].tolist() == [1, 1]
    with pytest.raises(DamagedFile, match="does not match its digest"):
        load_tensors(path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float8_e5m2, torch.complex64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, dtype, value):
    values = torch.tensor([1.0, value, 2.0]).to(dtype)
    path = tmp_path / "x"
    save_tensors(path, {"fine": torch.ones(2, dtype=dtype), "layer.bias": values}, {})
    with pytest.raises(DamagedFile, match=r"1 NaN or infinite values in 'layer\.bias'"):
        load_tensors(path)
    check_finite({"x": values[:1], "bool": torch.ones(2, dtype=torch.bool)}, "here")


def test_other_shapes_are_refused_before_a_value_is_read(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "x"
    save_file({"a": torch.full((2, 3), torch.nan), "c\n\x1b": torch.ones(1)}, path)
    for shapes, problem in (
        ({"a": (2, 3)}, r"it has 'c\\n\\u001b' too"),
        ({"a": (3, 2), "c\n\x1b": (1,)}, "'a' is 2 x 3 and should be 3 x 2"),
        ({"a": (), "c\n\x1b": (1,)}, "'a' is 2 x 3 and should be one number"),
        ({"a": (2, 3), "b": (1,)}, "it has no 'b'"),
    ):
        with pytest.raises(DamagedFile, match=problem):
            read_tensors(path, shapes)
    assert shape_mismatch({"a": [2]}, {"a": torch.Size([2])}) is None


def test_the_digest_covers_the_facts(file):
    content = file.read_bytes()
    assert b"step" in content
    file.write_bytes(content.replace(b"step", b"stop"))
    with pytest.raises(DamagedFile, match="digest"):
        load_tensors(file)
