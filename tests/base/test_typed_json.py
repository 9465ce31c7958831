"""JSON is checked against a declared type once, and whatever is wrong with it is one line."""

import json
import os
import re
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

import pytest

from rivals.base.errors import UserError
from rivals.base.typed_json import MAX_DEPTH, Between, conforms, parse_json, read_json


class Layer(TypedDict):
    width: Annotated[int, Between(1, 4096)]
    kind: Literal["conv", "linear"]
    stride: NotRequired[Literal[1, 2]]


class Network(TypedDict):
    name: str
    layers: list[Layer]
    labels: NotRequired[list[tuple[str, int]]]
    size: NotRequired[Annotated[int, Between(1, 64)] | None]
    scale: NotRequired[Annotated[float, Between(0, 1)]]
    loss: NotRequired[float]
    seeds: NotRequired[tuple[int, ...]]
    weights: NotRequired[dict[str, float]]
    is_robust: NotRequired[bool]
    until: NotRequired[int | str]
    rest: NotRequired[Any]


GOOD = {
    "name": "Zürich 🎨",
    "layers": [{"width": 8, "kind": "conv"}, {"width": 4096, "kind": "linear"}],
    "labels": [["a.png", 3]],
    "size": None,
    "scale": 1,
    "loss": float("nan"),
    "seeds": [0, 2**64 - 1],
    "weights": {"a/b": -0.5},
    "is_robust": True,
    "until": "2 epochs",
    "rest": {"any": [1, "thing", None]},
    "undeclared": [[]],
}


def parse(text):
    return parse_json(text, Network, "'net.json'", "copy it anew")


def test_content_of_the_declared_type_is_returned_unchanged():
    text = json.dumps(GOOD)
    assert str(parse(text)) == str(GOOD) == str(parse(b"\xef\xbb\xbf" + text.encode()))


@pytest.mark.parametrize(
    "change, says",
    [
        ({"name": 5}, "name is 5, not text"),
        ({"layers": {}}, "layers is an object, not a list"),
        ({"layers": [{"width": 8, "kind": "conv"}, {"kind": "conv"}]}, "layers[1] has no 'width'"),
        ({"layers": [7]}, "layers[0] is 7, not an object"),
        ({"layers": [{"width": 4097, "kind": "conv"}]}, "layers[0].width is 4097, not within 1 and 4,096"),
        ({"layers": [{"width": 8.0, "kind": "conv"}]}, "layers[0].width is 8.0, not an integer"),
        ({"layers": [{"width": True, "kind": "conv"}]}, "layers[0].width is true, not an integer"),
        ({"layers": [{"width": 8, "kind": "lstm"}]}, 'layers[0].kind is "lstm", not "conv" or "linear"'),
        ({"layers": [{"width": 8, "kind": "conv", "stride": True}]}, "layers[0].stride is true, not 1 or 2"),
        ({"labels": [["a.png", 1], ["b.png"]]}, "labels[1] is a list of 1, not a list of 2"),
        ({"labels": [["a.png", None]]}, "labels[0][1] is null, not an integer"),
        ({"size": "28"}, 'size is "28", not an integer'),
        ({"scale": float("nan")}, "scale is NaN, not within 0 and 1"),
        ({"loss": "low"}, 'loss is "low", not a number'),
        ({"seeds": [1, "2"]}, 'seeds[1] is "2", not an integer'),
        ({"weights": {"a\n\x1b[31m": []}}, "weights.a\\n\\u001b[31m is a list of 0, not a number"),
        ({"is_robust": 1}, "is_robust is 1, not true or false"),
        ({"until": None}, "until is null, not a whole number or text"),
        ({"name": ["x" * 1000] * 3}, "name is a list of 3, not text"),
        ({"size": "x" * 1000}, f'size is "{"x" * 36}..., not an integer'),
        ({"undeclared": [1, 2**64]}, "undeclared[1] is an integer beyond 64 bits"),
        ({"rest": {"a": -(2**63) - 1}}, "rest.a is an integer beyond 64 bits"),
        ({"rest": ["a\0b"]}, "rest[0] has text with a null character"),
        ({"rest": ["\ud800"]}, "rest[0] has text that is not Unicode"),
        ({"rest": {"\udfff": 1}}, "rest has text that is not Unicode"),
    ],
)
def test_wrong_field_is_named(change, says):
    with pytest.raises(UserError) as error:
        parse(json.dumps(GOOD | change))
    assert str(error.value) == f"'net.json' is invalid: {says}: copy it anew"


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "no JSON at line 1, column 1"),
        (b'{"name": "half', "no JSON at line 1, column 10"),
        (b"{}", "the content has no 'name'"),
        (b"[]", "the content is a list of 0, not an object"),
        (b"null", "the content is null, not an object"),
        (b'{"name": "\xff"}', "byte 10 is not UTF-8"),
        ("[" * 100_000, "nested too deep"),
        ('{"a":' * 100_000, "nested too deep"),
        ('{"rest": ' + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "}", "nested too deep"),
        ('{"name": ' + "9" * 5000 + "}", "a number of thousands of digits"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_such_json_is_one_line(content, says):
    with pytest.raises(UserError, match=re.escape(says)) as error:
        parse(content)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


class AsText(TypedDict, total=False):
    """As if the module postponed its annotations."""

    needed: "Required[int]"
    optional: "int"
    also_optional: "NotRequired[int]"


def test_postponed_annotations_say_what_is_required():
    assert conforms({"needed": 1}, AsText) and conforms({"needed": 1, "optional": 2}, AsText)
    assert not conforms({}, AsText) and not conforms({"needed": 1, "also_optional": "2"}, AsText)
    assert conforms([{"needed": 1}, 5], list[AsText | int]) and not conforms([None], list[AsText | int])


def test_missing_file_differs_from_one_that_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json", Network, "")
    with pytest.raises(UserError, match="not a file"):
        read_json(tmp_path, Network, "")
    (tmp_path / "net.json").write_text(json.dumps(GOOD))
    assert read_json(tmp_path / "net.json", Network, "")["name"] == GOOD["name"]
    with pytest.raises(UserError, match="more than the 10 that are read"):
        read_json(tmp_path / "net.json", Network, "", max_bytes=10)
    with pytest.raises(UserError, match="cannot read"):
        read_json(tmp_path / "net.json" / "inside.json", Network, "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_fifo_is_refused_without_waiting_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "net.json")
    with pytest.raises(UserError, match="not a file"):
        read_json(tmp_path / "net.json", Network, "")
