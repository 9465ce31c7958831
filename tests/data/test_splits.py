"""Splits of folders and zips: their names, and layouts whose classes are unclear."""

import zipfile
from io import BytesIO

import pytest
from PIL import Image

from helpers.refusals import named
from rivals.data.load import evaluation_split, has_split, load
from rivals.data.splits import split_of

PNG = BytesIO()
Image.new("L", (8, 8), 9).save(PNG, "png")


@pytest.fixture(params=["folder", "wrapped folder", "zip", "wrapped zip"])
def make(tmp_path, request):
    """Makes a source of images from their names."""

    def make(*names):
        path = tmp_path / ("set.zip" if "zip" in request.param else "set")
        names = [f"{'archive/' * ('wrapped' in request.param)}{name}" for name in names]
        if "folder" in request.param:
            for name in names:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(PNG.getvalue())
        else:
            with zipfile.ZipFile(path, "w") as archive:
                for name in names:
                    archive.writestr(name, PNG.getvalue())
        return str(path)

    return make


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"), ("Training", "train"), ("TRAINING_SET", "train"), ("trainset", "train"),
        ("seg_train", "train"), ("Train Images", "train"), ("Test", "test"), ("testing", "test"), ("test-data", "test"),
        ("Val", "val"), ("valid", "val"), ("Validation", "val"), ("dev", "val"), ("pred", "pred"), ("seg_pred", "pred"),
        ("cats", None), ("test1", None), ("training camp", None), ("trains", None), ("images", None), ("set", None),
        ("0", None), ("", None),
    ],
)  # fmt: skip
def test_the_split_that_a_folder_means(folder, split):
    assert split_of(folder) == split


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("Train", "Test"), ("TRAIN", "valid"), ("train_images", "val_images"), ("dev", "train")],
)
def test_splits_of_any_usual_name_are_no_classes(make, train, test):
    if train == "dev":
        train, test = test, train
    source = make(f"{train}/cats/a.png", f"{train}/dogs/b.png", f"{train}/dogs/c.png", f"{test}/cats/d.png")
    images = load(source)
    assert images.classes == ("cats", "dogs")
    assert images.labels.tolist() == [0, 1, 1]
    assert len(load(source, split=test)) == len(load(source, split=evaluation_split(source))) == 1
    assert len(load(source, split="all")) == 4


def test_the_layout_train_val_test_pred(make):
    files = [f"{split}/{kind}/{split}.png" for split in ("train", "val", "test") for kind in ("ice", "sea", "sun")]
    source = make(*files, "pred/1.png", "pred/2.png")
    assert load(source).classes == ("ice", "sea", "sun")
    assert evaluation_split(source) == "test"
    assert load(source, split="pred").labels is None
    assert has_split(source, "validation")


def test_a_split_may_be_wrapped_in_a_folder_of_its_own_name(make):
    source = make("seg_train/seg_train/sea/a.png", "seg_train/seg_train/sun/b.png", "seg_test/seg_test/sea/c.png")
    assert load(source).classes == ("sea", "sun")
    assert load(source, split="test").classes == ("sea",)


@pytest.mark.parametrize(
    ("train", "test"), [("photos", "photos"), ("Data", "pics"), ("jpg", ""), ("", "png"), ("train/photos", "photos")]
)
def test_a_folder_that_wraps_the_classes_of_a_split_is_no_class(make, train, test):
    source = make(*(f"Train/{train}/{kind}/a.png".replace("//", "/") for kind in ("ice", "sea", "sun")),
                  *(f"valid/{test}/{kind}/b.png".replace("//", "/") for kind in ("sea", "sun")))  # fmt: skip
    assert load(source).classes == ("ice", "sea", "sun")
    assert load(source, split="val").classes == ("sea", "sun")
    assert evaluation_split(source) == "val"
    assert len(load(source, split="all")) == 5


def test_a_single_class_in_a_split_is_no_wrapper(make):
    source = make("train/sea/a.png", "test/sea/b.png", "test/sun/c.png")
    assert load(source).classes == ("sea",)
    assert load(source, split="test").classes == ("sea", "sun")


def test_test_images_without_classes_are_not_evaluated_on(make):
    source = make("train/cats/a.png", "train/dogs/b.png", "test/1.png", "test/2.png")
    assert evaluation_split(source) is None
    assert len(load(source, split="test")) == 2


def test_validation_images_stand_in_for_test_images_without_classes(make):
    assert evaluation_split(make("train/cats/a.png", "test/1.png", "valid/cats/c.png")) == "val"


def test_a_single_split_is_no_class(make):
    source = make("train/cats/a.png", "train/dogs/b.png")
    assert load(source).classes == ("cats", "dogs")
    assert evaluation_split(source) is None


def test_test_images_alone_are_not_trained_on(make):
    source = make("Testing/cats/a.png", "Testing/dogs/b.png")
    assert evaluation_split(source) == "test"
    with named("unknown split of", "'train'", "test, all"):
        load(source)


def test_a_split_that_is_missing_is_named(make):
    with named("unknown split of", "'train'", "test, val, all"):
        load(make("test/cats/a.png", "val/dogs/b.png"))


def test_two_folders_for_one_split_are_refused(make):
    with named("two subfolders for one split, 'Val' and 'valid'"):
        load(make("train/a.png", "Val/b.png", "valid/c.png"))


@pytest.mark.parametrize(
    "names",
    [
        ["fold1/cats/a.png", "fold1/dogs/b.png", "fold2/cats/c.png", "fold2/dogs/d.png"],
        ["Train/cats/a.png", "Train/dogs/b.png", "More/Cats/c.png", "More/Dogs/d.png", "More/owls/e.png"],
        ["cats/train/a.png", "cats/test/b.png", "dogs/train/c.png", "dogs/test/d.png"],
    ],
)
def test_sub_folders_that_hold_the_same_sub_folders_are_refused_with_the_fix(make, names):
    with named("both hold", "if they are splits, name them train and test; if they are classes, put"):
        load(make(*names))


def test_classes_may_have_a_sub_folder_of_the_same_name_each(make):
    source = make("n01/images/a.png", "n02/images/b.png", "n02/images/more/c.png", "n03/other/d.png")
    assert load(source).classes == ("n01", "n02", "n03")


def test_folders_are_classes_unless_all_are_splits(make):
    assert load(make("train/a.png", "bus/b.png", "tram/c.png")).classes == ("bus", "train", "tram")
