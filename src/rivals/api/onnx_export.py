"""``export``: a network as a file for other programs, verified before it is written."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rivals.api.common.network_io import home_of, load, save_network
from rivals.base.errors import UserError
from rivals.base.files import make_folder, write_atomically

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor, nn

TOLERANCE = 1e-4  # between the outputs of the network and of its export
CHECKED = (1, 5)  # batches that are compared


def export(
    run: str,
    *,
    format: Literal["onnx", "safetensors"] = "onnx",
    out: Path | None = None,
) -> dict[str, Any]:
    """Export a network for other programs.

    As onnx, a generator maps ``latents`` (batch, latent_dim) and, if it has classes, ``labels`` (batch,) int64, to
    ``images`` (batch, C, H, W) in [-1, 1]; a classifier maps ``images`` (batch, C, H, W) in [0, 1] to ``logits``
    (batch, classes); a translator ``inputs`` (batch, C, H, W) in [0, 1] to ``images`` in [0, 1], where H and W are any
    multiples of what its halvings need.
    The file is written only if the outputs of onnxruntime agree to 1e-4. As safetensors, weights and how to build
    the network again are copied out of the run, for ``rivals.load``.

    Args:
        run: A run folder, or a network's .safetensors file.
        format: onnx, or safetensors.
        out: The file to write; RUN/NETWORK.onnx or NETWORK-export.safetensors by default.

    Returns:
        What was written: ``file``, ``bytes`` and, for onnx, ``largest_difference``.

    Raises:
        UserError: the file exists, a package is missing, or the outputs of the export differ.
    """
    net = load(run)
    role = net.spec["role"]
    if format == "onnx" and role not in ("generator", "classifier", "translator"):
        raise UserError(f"the {role} at '{run}' has no ONNX form: add --format safetensors")
    file = Path(out) if out else home_of(run) / (f"{role}.onnx" if format == "onnx" else f"{role}-export.safetensors")
    if file.suffix != f".{format}":
        raise UserError(f"'{file}' does not end in .{format}: name a file that does, or another --format")
    if file.exists():
        raise UserError(f"'{file}' exists already: remove it or choose another with --out")
    make_folder(file.parent, parents=True)
    if format == "safetensors":
        save_network(net, file, {key: value for key, value in net.about.items() if key not in ("format", "spec")})
        return {"file": str(file), "bytes": file.stat().st_size}
    if role == "translator":
        from rivals.nets.translator import Unpadded

        net = Unpadded(net).eval()
    content = _onnx(net, role)
    difference = _difference(net, role, content)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the outputs of the export differ by up to {difference:.2g}, where {TOLERANCE:g} is allowed: "
            "nothing was written; try another version of onnx or onnxruntime"
        )
    write_atomically(file, content)
    return {"file": str(file), "bytes": len(content), "largest_difference": difference}


def _inputs(net: Any, role: str, n: int) -> dict[str, Tensor]:
    """What to hand the network, by name: n of each, the same every time."""
    import torch

    random = torch.Generator().manual_seed(n)
    if role == "translator":
        # Other sides than in training, too: n + 8 steps of the halvings, and one more.
        height, width = (net.multiple * (n + more) for more in (8, 9))
        return {"inputs": torch.rand(n, net.in_channels, height, width, generator=random)}
    if role == "classifier":
        return {"images": torch.rand(n, net.channels, *net.size, generator=random)}
    found = {"latents": torch.randn(n, net.latent_dim, generator=random)}
    return found | ({"labels": torch.arange(n) % net.classes} if net.classes else {})


def _onnx(net: Any, role: str) -> bytes:
    import torch

    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise UserError("onnx needs packages that are not installed: pip install 'rivals[export]'") from None
    inputs = _inputs(net, role, 3)
    dims: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=65536)}
    if role == "translator":
        steps = [torch.export.Dim(name, min=8, max=8192) for name in ("rows", "columns")]
        dims |= {2 + axis: step if net.multiple == 1 else net.multiple * step for axis, step in enumerate(steps)}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _hushed():
        warnings.simplefilter("ignore")  # the exporter's, on its own insides
        program = torch.onnx.export(
            net,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=["logits" if role == "classifier" else "images"],
            dynamic_shapes=tuple(dims for _ in inputs),
            verbose=False,
        )
        assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _hushed() -> Any:
    """Without what the exporter logs of its passes."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _difference(net: nn.Module, role: str, content: bytes) -> float:
    """The largest difference between the outputs of a network and of its export, over several batches."""
    import torch

    try:
        import onnxruntime
    except ImportError:
        raise UserError("the check of an onnx file needs onnxruntime: pip install 'rivals[export]'") from None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for n in CHECKED:
        inputs = _inputs(net, role, n)
        with torch.no_grad():
            own: npt.NDArray[Any] = net(*inputs.values()).numpy()
        (theirs,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        worst = max(worst, float(abs(own - theirs).max())) if own.shape == theirs.shape else float("inf")
    return worst
