"""Names of classes: their order, and how images are matched with a model by name."""

import json
import os
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from helpers.commands import assert_refused
from helpers.refusals import named
from rivals.data.classes import class_index, class_order, match_classes, write_class_names
from rivals.data.imageset import ImageSet
from rivals.data.load import load
from rivals.data.pack import pack


def png(value):
    content = BytesIO()
    Image.new("L", (8, 8), value).save(content, "png")
    return content.getvalue()


def make(path, files):
    """A folder or a zip with files named after what they hold."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    return path


def labeled(classes, labels, split="train"):
    pixels = np.zeros((len(labels), 1, 8, 8), np.uint8)
    return ImageSet("set", split, pixels, np.array(labels, np.int64), tuple(classes))


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "9", "0", "11", "1"], ["0", "1", "9", "10", "11"]),
        (["007", "12", "3"], ["3", "007", "12"]),
        (["1", "-1", "0"], ["-1", "0", "1"]),
        (["10", "9", "b"], ["10", "9", "b"]),
        (["v10", "v9"], ["v10", "v9"]),
        (["1.5", "10", "2"], ["1.5", "10", "2"]),
    ],
)
def test_whole_numbers_are_ordered_by_value_and_other_names_as_text(names, order):
    assert class_order(names) == order


@pytest.mark.parametrize("where", ["set", "set.zip"])
def test_the_index_of_a_class_named_by_a_number_is_its_rank_in_folders_zips_and_packs(tmp_path, where):
    values = [*range(0, 130, 10)]
    source = make(tmp_path / where, {f"{value}/a.png": png(value) for value in values})
    pack(source, tmp_path / "packed.zip")
    for each in (source, tmp_path / "packed.zip"):
        images = load(each)
        assert images.classes == tuple(map(str, values))
        assert [int(images.classes[label]) for label in images.labels] == images.images[:, 0, 0, 0].tolist()


def test_the_number_of_a_class_named_by_a_number_is_its_name():
    assert class_index("2", ["cat", "dog", "owl"], 3) == 2
    assert class_index("owl", ["cat", "dog", "owl"], 3) == 2
    assert class_index("2", ["1", "2", "3"], 3) == 1
    assert class_index("0", ["1", "2", "3"], 3) is None
    assert class_index("2", [], 3) == 2
    assert class_index("3", [], 3) is None
    assert class_index("cats", ["cat", "dog"], 2) is None


def test_labels_follow_the_names_of_the_model():
    notes = []
    images = match_classes(labeled(["b", "c", "a"], [0, 1, 2, 0]), ("a", "b", "c", "d"), "the model", notes.append)
    assert images.labels.tolist() == [1, 2, 0, 1]
    assert images.classes == ("a", "b", "c", "d")
    assert notes == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("Owls", "owls"), ("STRASSE", "straße"), ("Cafe\u0301", "café"), ("03", "3"), ("ＡＢＣ", "abc")],
)
def test_another_spelling_matches_and_is_told(ours, theirs):
    notes = []
    images = match_classes(labeled([ours, "x"], [0, 1]), ("x", theirs), "the model", notes.append)
    assert images.labels.tolist() == [1, 0]
    assert len(notes) == 1
    assert f"'{ours}' as '{theirs}'" in notes[0]


def test_the_exact_name_takes_precedence_over_another_spelling():
    images = match_classes(labeled(["US", "us"], [0, 1]), ("us", "US"), "the model", pytest.fail)
    assert images.labels.tolist() == [1, 0]


def test_classes_without_images_are_not_looked_for():
    images = match_classes(labeled(["cat", "car", "dog"], [0, 2]), ("dog", "cat"), "the model", pytest.fail)
    assert images.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "names", "says"),
    [
        (["cat", "fox"], ["cat", "dog"], "the class 'fox' of 'set' (test) fits no class of the model"),
        (["Cat", "cAT"], ["cat", "dog"], "'cAT' of 'set' (test) fits no single class"),
        (["cAT", "x"], ["CAT", "Cat", "x"], "'cAT' of 'set' (test) fits no single class"),
    ],
)
def test_other_classes_are_refused_with_both_lists(classes, names, says):
    with named(says, ", ".join(classes), "the model has " + ", ".join(names)):
        match_classes(labeled(classes, [0, 1], "test"), names, "the model", lambda note: None)


def test_images_without_classes_are_refused():
    images = ImageSet("set", "train", np.zeros((2, 1, 8, 8), np.uint8))
    with named("'set' has no classes", "cat, dog"):
        match_classes(images, ("cat", "dog"), "the model", pytest.fail)


@pytest.mark.parametrize(
    "content", ["cat\ndog bed\nowl\n", "\ufeffcat\r\ndog bed\r\n owl\r\n\r\n", '["cat", "dog bed", "owl"]\n']
)
def test_class_names_come_from_a_file(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_bytes(content.encode())
    assert json.loads(write_class_names(str(path))) == ["cat", "dog bed", "owl"]


def test_class_names_come_from_a_list_and_from_their_written_form():
    written = write_class_names(["cat", "Ä"])
    assert json.loads(written) == ["cat", "Ä"]
    assert write_class_names(written) == written


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no names"),
        ("a\n\nb\n", "an empty line"),
        ("a\nb\na\n", "'a' twice"),
        ("[1, 2]", "no class names"),
        ("[1,", "not a JSON list"),
        (b"\xff\xfe\x80", "not text in UTF-8"),
    ],
)
def test_a_file_without_class_names_is_refused(tmp_path, content, says):
    path = tmp_path / "names.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with named("names.txt", says):
        write_class_names(path)
    with named("cannot read the class names in 'nowhere.txt': No such file"):
        write_class_names("nowhere.txt")


def test_a_class_folder_with_a_name_in_another_encoding_is_told_before_anything_is_written(tmp_path, run_rivals):
    for name in (b"caf\xe9", b"tea"):
        folder = tmp_path / "photos" / os.fsdecode(name)
        try:
            folder.mkdir(parents=True)
        except OSError:
            pytest.skip("the file system takes Unicode alone")
        for number in range(12):
            (folder / f"{number}.png").write_bytes(png(20 * number))
    for command in ("classify", "train"):
        result = run_rivals(command, tmp_path / "photos", "--until", "1 steps", "--out", tmp_path / "run")
        assert_refused(result, r"the class 'caf\udce9' has a name that is not Unicode: rename its folder")
    assert not (tmp_path / "run").exists()
