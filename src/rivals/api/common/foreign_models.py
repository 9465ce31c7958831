"""Classifiers in other forms: ONNX files, by onnx2torch, and image classifiers of Hugging Face's transformers."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from rivals.base.errors import UserError
from rivals.base.files import expand_user
from rivals.base.size import Size

OPSET = 16  # the newest whose operators onnx2torch knows throughout


def onnx_model(path: str) -> tuple[Any, Size | None, int | None]:
    """The network of an ONNX file as a module, with the size and the channels of its images, where they are fixed.

    Raises:
        UserError: the packages are missing, the file cannot be read, keeps its weights elsewhere, or has an operator
            that onnx2torch does not know.
    """
    try:
        onnx: Any = importlib.import_module("onnx")
        onnx2torch: Any = importlib.import_module("onnx2torch")
    except ImportError:
        raise UserError(f"onnx:{path} needs the packages onnx and onnx2torch: pip install 'rivals[models]'") from None
    file = expand_user(path)
    if not file.is_file():
        raise UserError(f"there is no ONNX file '{path}': give its path, as onnx:model.onnx")
    invalid = UserError(f"'{path}' is no valid ONNX file: export it again")
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception:  # protobuf raises several kinds on arbitrary bytes
        raise invalid from None
    if any(each.data_location == onnx.TensorProto.EXTERNAL for each in model.graph.initializer):
        raise UserError(
            f"'{path}' keeps its weights in other files, which are not read: save it as one file, as by "
            "onnx.save(onnx.load(PATH), NEW)"
        )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        raise invalid from None
    _plain_reshapes(model)
    try:
        net = onnx2torch.convert(_older(onnx, model))
    except NotImplementedError as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        kinds = ", ".join(sorted({node.op_type for node in model.graph.node}))
        raise UserError(f"onnx2torch cannot convert '{path}' ({reason}): its operators are {kinds}") from None
    size, channels = _image_shape(model)
    return net.eval(), size, channels


def _plain_reshapes(model: Any) -> None:
    """Take ``allowzero`` off: no batch has a side of 0, and onnx2torch refuses the attribute."""
    for node in model.graph.node:
        kept = [each for each in node.attribute if each.name != "allowzero"]
        if node.op_type == "Reshape" and len(kept) < len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)


def _older(onnx: Any, model: Any) -> Any:
    """The same model in an opset that onnx2torch knows; as it is if there is no way there."""
    if max(each.version for each in model.opset_import if each.domain in ("", "ai.onnx")) <= OPSET:
        return model
    version_converter: Any = importlib.import_module("onnx.version_converter")
    try:
        return version_converter.convert_version(model, OPSET)
    except RuntimeError:  # no adapter for one of its operators
        return model


def _image_shape(model: Any) -> tuple[Size | None, int | None]:
    stored = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in stored]
    dims = [dim.dim_value or None for dim in inputs[0].type.tensor_type.shape.dim] if inputs else []
    if len(dims) != 4:
        return None, None
    return Size(dims[2], dims[3]) if dims[2] and dims[3] else None, dims[1]


def hugging_face_model(
    name: str,
) -> tuple[Any, Size | None, int | None, tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """An image classifier of transformers, from a folder or the Hub: with size, channels, mean, std and class names.

    Only ``.safetensors`` are read, and no code of others is run.

    Raises:
        UserError: the package is missing, or there is no image classifier of that name.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise UserError(f"hf:{name} needs the package transformers: pip install 'rivals[models]'") from None
    logging.getLogger("transformers").setLevel(logging.ERROR)
    place = str(expand_user(name)) if Path(expand_user(name)).is_dir() else name
    try:
        net = transformers.AutoModelForImageClassification.from_pretrained(
            place, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:  # no network, no such name, no classifier of images
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"hf:{name} cannot be loaded ({reason}): give the folder or the name of an image classifier"
        ) from None
    config = net.config
    classes = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    mean, std = _normalization(transformers, place)
    return (
        net.eval(),
        _size_of(getattr(config, "image_size", None)),
        getattr(config, "num_channels", None),
        mean,
        std,
        classes,
    )


def _size_of(image_size: Any) -> Size | None:
    """The size in a configuration: a number, or height and width."""
    sides = image_size if isinstance(image_size, list | tuple) else [image_size] * 2
    return Size(*sides) if [type(side) for side in sides] == [int, int] else None


def _normalization(transformers: Any, place: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of ``preprocessor_config.json``; none where there is no such file, or it does not normalize."""
    import json

    try:
        file = Path(transformers.utils.cached_file(place, "preprocessor_config.json"))
    except OSError:
        return (), ()
    try:
        about = json.loads(file.read_text())
        if not about.get("do_normalize", True):
            return (), ()
        return tuple(map(float, about["image_mean"])), tuple(map(float, about["image_std"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"'{file}' is damaged: download it again, or give --mean and --std without it") from None
