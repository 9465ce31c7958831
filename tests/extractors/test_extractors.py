"""Extractors: exact resize rules, networks equal to the published ones, bit-identical features for any batch."""

import functools
import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from rivals.base.errors import UserError
from rivals.extractors import inception, weights
from rivals.extractors.base import BATCH, Extractor
from rivals.extractors.efficientnet_lite0 import PACKAGE, open_lite0
from rivals.extractors.inception import Inception, open_inception
from rivals.extractors.registry import EXTRACTORS
from rivals.extractors.resize import antialiased_bilinear, pillow_bicubic, tf1_bilinear, to_rgb
from rivals.extractors.vgg16 import VGG16
from rivals.extractors.vit import ViT, clip_weights, open_clip, open_dinov2
from rivals.extractors.weights import MissingWeights, PublishedWeights

WHITE = 30.3601, 644  # the sum of the features, and the class

needs_lite0 = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="the extra lite0 is not installed")


@pytest.fixture(scope="module")
def lite0():
    return open_lite0()


def drawn(n, size=32, channels=3, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=source)


def test_tf1_bilinear_equals_its_definition():
    # Pixel i comes from i * in / out, not from centers; past the last pixel is the last pixel.
    row = torch.tensor([[0.0, 100.0]]).expand(2, 2)[None, None]
    assert tf1_bilinear(row, 5)[0, 0, 0].tolist() == pytest.approx([0, 40, 80, 100, 100], abs=1e-4)
    assert tf1_bilinear(row.mT, 5)[0, 0, :, 3].tolist() == pytest.approx([0, 40, 80, 100, 100], abs=1e-4)
    # Where images shrink, nothing is averaged: every second pixel falls away.
    wide = torch.arange(16.0).view(1, 1, 4, 4)
    assert tf1_bilinear(wide, 2)[0, 0].tolist() == [[0, 2], [8, 10]]
    # 32 to 299, as FID has it: pixel i lies at 32 i / 299, worked out by hand for a ramp of slope 8.
    ramp = (8.0 * torch.arange(32)).expand(32, 32)[None, None]
    large = tf1_bilinear(ramp, 299)[0, 0]
    stored = {0: 0.0, 1: 0.856187, 100: 85.618729, 150: 128.428094, 289: 247.438127, 290: 248.0, 298: 248.0}
    assert {i: large[7, i].item() for i in stored} == pytest.approx(stored, abs=1e-4)


def test_pillow_bicubic_equals_pillow():
    for before, after in ((50, 75), (32, 224), (100, 64)):
        (image,) = drawn(1, before)
        ours = pillow_bicubic(image[None].float(), after)[0].permute(1, 2, 0).numpy()
        theirs = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((after, after), Image.Resampling.BICUBIC)
        apart = np.abs(ours - np.asarray(theirs, np.float32))
        assert apart.max() <= 1 and (apart > 0).mean() < 0.005  # Pillow sums in fixed point


def test_antialiased_bilinear_averages_when_downsampling():
    checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 255.0
    assert antialiased_bilinear(checks[None, None], 4)[0, 0, 1:-1, 1:-1].sub(127.5).abs().max() < 1e-3


def test_gray_is_repeated_and_alpha_composited_on_white():
    assert to_rgb(drawn(2, channels=1)).shape == (2, 3, 32, 32)
    clear = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    assert to_rgb(clear).unique().tolist() == [255]
    with pytest.raises(UserError, match="float32"):
        to_rgb(torch.rand(1, 3, 8, 8))


@needs_lite0
def test_lite0_features_are_bit_identical_for_any_batch(lite0):
    images = drawn(BATCH + 3)
    whole = lite0(images)
    assert whole.shape == (BATCH + 3, 1280) == (BATCH + 3, lite0.dim) and lite0.classes == 1000
    assert torch.equal(torch.cat([lite0(some) for some in torch.split(images, 20)]), whole)
    assert torch.equal(lite0(images[3:4]), whole[3:4])


@needs_lite0
def test_no_images_are_refused(lite0):
    with pytest.raises(UserError, match="no images to extract features of"):
        lite0.extract(torch.zeros(0, 3, 32, 32, dtype=torch.uint8))


@needs_lite0
def test_lite0_tells_different_images_apart(lite0):
    seen = lite0.extract(torch.zeros(1, 1, 28, 28, dtype=torch.uint8).fill_(255))
    assert lite0.hash == "97a821455b596789"
    # Of a white image, once checked against the package efficientnet-lite-pytorch.
    assert seen.features.sum().item() == pytest.approx(WHITE[0], rel=1e-4)
    assert seen.logits[0].argmax().item() == WHITE[1]


@needs_lite0
def test_lite0_equals_the_published_network(lite0):
    peer = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite-pytorch is not installed")
    blocks, settings = peer.utils.get_model_params("efficientnet-lite0", {"image_size": lite0.size.height})
    net = peer.model.EfficientNet(blocks, settings).eval()
    path = importlib.util.find_spec(PACKAGE).submodule_search_locations[0]
    net.load_state_dict(torch.load(f"{path}/models/efficientnet-lite0-57934424.pth", weights_only=True))
    x = lite0.prepare(drawn(2).float())
    with torch.no_grad():
        torch.testing.assert_close(lite0.net(x)[1], net(x), rtol=1e-4, atol=1e-4)


def randomized(net, seed=0):
    torch.manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
            layer.weight.data.uniform_(0.7, 1.3)
            layer.bias.data.normal_(0, 0.1)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return net.eval()


@pytest.fixture(scope="module")
def torchvisions():
    """torchvision's Inception with random weights, made into the graph of 2015-12-05."""
    from torchvision.models import inception as theirs

    with torch.random.fork_rng():
        net = randomized(theirs.Inception3(num_classes=1008, aux_logits=False, init_weights=False))

    def features_of(x):
        pools = iter([*[functools.partial(F.avg_pool2d, count_include_pad=False)] * 8, F.max_pool2d])
        fake = SimpleNamespace(**{name: getattr(F, name) for name in ("relu", "max_pool2d")})
        fake.avg_pool2d = lambda x, kernel_size, stride, padding: next(pools)(x, kernel_size, stride, padding)
        net.fc = nn.Identity()
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(theirs, "F", fake)
            return net(x)

    return {name: value.clone() for name, value in net.state_dict().items()}, features_of


def test_inception_equals_torchvision_except_for_its_pools(torchvisions):
    state, features_of = torchvisions
    x = torch.rand(2, 3, 139, 139, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        features, logits = Inception(state)(x)
    torch.testing.assert_close(features, features_of(x), rtol=1e-4, atol=1e-5)
    assert features.std() > 1e-3
    torch.testing.assert_close(logits, features @ state["fc.weight"].T, rtol=1e-4, atol=1e-5)  # without the bias


def test_unofficial_weights_are_recognized(torchvisions, tmp_path):
    path = tmp_path / "inception.pth"
    torch.save(torchvisions[0], path)
    assert not inception.PUBLISHED.is_official(path)
    extractor = open_inception(path)
    assert (extractor.dim, extractor.classes, extractor.official) == (2048, 1008, False)
    assert extractor.resize == "TF1 bilinear to 299 px"


def test_inception_equals_torch_fidelity():
    try:
        path = inception.PUBLISHED.find(None)
    except MissingWeights as missing:
        pytest.skip(str(missing))
    peer = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    if path.suffix != ".pth":
        pytest.skip("torch-fidelity reads the state dict, and here is the scripted module only")
    theirs = peer.FeatureExtractorInceptionV3("peer", ["2048", "logits_unbiased"], feature_extractor_weights_path=path)
    ours = open_inception(path)
    assert ours.official
    images = drawn(8)
    seen, (features, logits) = ours.extract(images), theirs(images)
    torch.testing.assert_close(seen.features, features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seen.logits, logits, rtol=1e-4, atol=1e-4)


def test_vgg16_equals_torchvision():
    from torchvision.models.vgg import VGG, make_layers

    cfg = [4, 4, "M", 4, 4, "M", 4, 4, 4, "M", 4, 4, 4, "M", 4, 4, 4, "M"]
    with torch.random.fork_rng():
        net = VGG(make_layers(cfg), num_classes=5, init_weights=False)
        first, second, last = nn.Linear(4 * 49, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        drop = nn.Identity()
        net.classifier = nn.Sequential(first, nn.ReLU(), drop, second, nn.ReLU(), drop, last)
        randomized(net)
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features, logits = VGG16(net.state_dict())(x)
        torch.testing.assert_close(logits, net(x))
        torch.testing.assert_close(features, net.classifier[:5](net.avgpool(net.features(x)).flatten(1)))


def transformer(clip):
    """A transformer of two blocks by PyTorch's own layers, as weights under DINOv2's names and as a function."""
    source = torch.Generator().manual_seed(3)
    width, patch, side = 128, 4, 3
    gelu = (lambda x: x * torch.sigmoid(1.702 * x)) if clip else F.gelu
    eps = 1e-5 if clip else 1e-6
    how = {"dim_feedforward": 4 * width, "dropout": 0.0, "activation": gelu, "layer_norm_eps": eps}
    layers = [nn.TransformerEncoderLayer(width, 2, batch_first=True, norm_first=True, **how).eval() for _ in range(2)]
    found = {
        "cls_token": torch.randn(1, 1, width, generator=source),
        "pos_embed": torch.randn(1, 1 + side**2, width, generator=source),
        "patch_embed.proj.weight": torch.randn(width, 3, patch, patch, generator=source) / 7,
        "patch_embed.proj.bias": torch.randn(width, generator=source),
    }
    for name in ("norm", *(["norm_pre"] if clip else [])):
        found |= {f"{name}.weight": torch.rand(width, generator=source), f"{name}.bias": torch.rand(width)}
    for i, layer in enumerate(layers):
        for parameter in layer.parameters():
            parameter.data = torch.randn(parameter.shape, generator=source) / 10
        parts = {"norm1": layer.norm1, "norm2": layer.norm2, "attn.proj": layer.self_attn.out_proj}
        parts |= {"mlp.fc1": layer.linear1, "mlp.fc2": layer.linear2}
        for name, part in parts.items():
            found |= {f"blocks.{i}.{name}.{kind}": getattr(part, kind).detach() for kind in ("weight", "bias")}
        found[f"blocks.{i}.attn.qkv.weight"] = layer.self_attn.in_proj_weight.detach()
        found[f"blocks.{i}.attn.qkv.bias"] = layer.self_attn.in_proj_bias.detach()
        if not clip:
            found |= {f"blocks.{i}.ls{which}.gamma": torch.ones(width) for which in (1, 2)}
    if clip:
        found["projection"] = torch.randn(48, width, generator=source)

    def norm(x, name):
        return F.layer_norm(x, (width,), found[f"{name}.weight"], found[f"{name}.bias"], eps)

    def features_of(x):
        tokens = F.conv2d(x, found["patch_embed.proj.weight"], found["patch_embed.proj.bias"], patch).flatten(2).mT
        tokens = torch.cat([found["cls_token"].expand(len(x), 1, width), tokens], 1) + found["pos_embed"]
        tokens = norm(tokens, "norm_pre") if clip else tokens
        with torch.no_grad():
            for layer in layers:
                tokens = layer(tokens)
        first = norm(tokens[:, 0], "norm")
        return F.normalize(first @ found["projection"].T) if clip else first

    return found, features_of


@pytest.mark.parametrize("clip", [False, True])
def test_vit_equals_pytorch_transformer_layers(clip):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found, features_of = transformer(clip)
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ViT(found)(x)[0], features_of(x), rtol=1e-4, atol=1e-4)


def test_clip_weights_from_hugging_face_are_renamed():
    with torch.random.fork_rng():
        found, _ = transformer(clip=True)
    names = {"cls_token": "embeddings.class_embedding", "pos_embed": "embeddings.position_embedding.weight"}
    names |= {"patch_embed.proj.weight": "embeddings.patch_embedding.weight"}
    names |= {f"norm_pre.{kind}": f"pre_layrnorm.{kind}" for kind in ("weight", "bias")}
    names |= {f"norm.{kind}": f"post_layernorm.{kind}" for kind in ("weight", "bias")}
    theirs = {"visual_projection.weight": found["projection"], "text_model.final_layer_norm.bias": torch.zeros(3)}
    for name, value in found.items():
        if name.startswith("blocks."):
            _, block, *rest = name.split(".")
            part, home = ".".join(rest), f"vision_model.encoder.layers.{block}."
            if part.startswith("attn.qkv"):
                kind = part.rpartition(".")[2]
                theirs |= {f"{home}self_attn.{x}_proj.{kind}": v for x, v in zip("qkv", value.chunk(3), strict=True)}
            else:
                part = part.replace("attn.proj", "self_attn.out_proj").replace("norm", "layer_norm")
                theirs[home + part] = value
        elif name in names:
            theirs[f"vision_model.{names[name]}"] = value
    ours = clip_weights(theirs)
    assert ours.keys() == found.keys() - {"patch_embed.proj.bias"}
    assert all(torch.equal(ours[name], found[name]) for name in ours)


def test_dinov2_position_embedding_is_interpolated_as_in_its_code():
    with torch.random.fork_rng():
        net = ViT(transformer(clip=False)[0])
    grid = net.pos_embed[1:].T.reshape(1, -1, 3, 3)
    wanted = F.interpolate(grid, scale_factor=(2.1 / 3, 2.1 / 3), mode="bicubic")
    assert net._position_embedding(3) is net.pos_embed
    torch.testing.assert_close(net._position_embedding(2)[1:], wanted[0].flatten(1).T)


def test_features_that_are_not_finite_are_refused():
    class Broken(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) / (x.mean() - x.mean()), None

    extractor = Extractor("broken", Broken(), lambda x: x, size=8, resize="none")
    with pytest.raises(UserError, match=r"^the extractor broken gave features that are not finite numbers: .*damaged"):
        extractor(drawn(2, 8))


def test_missing_weights_name_url_and_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("inception", "dinov2", "clip", "vgg16"):
        with pytest.raises(
            MissingWeights, match=rf"^{name} has no weights here: fetch https://\S+ and put it into {tmp_path}"
        ):
            EXTRACTORS[name](None)
    with pytest.raises(MissingWeights, match=r"no file of weights 'nowhere\.pth': fetch https"):
        EXTRACTORS["vgg16"](tmp_path.joinpath("x").relative_to(tmp_path).with_name("nowhere.pth"))
    published = PublishedWeights("some", "https://x/some.pth", ("some.pth",), ("a/b",))
    for place in ("rivals/weights/some.pth", "torch/hub/checkpoints/some.pth", "hf/hub/models--a--b/snapshots/1"):
        file = tmp_path / place if place.endswith("pth") else tmp_path / place / "model.safetensors"
        file.parent.mkdir(parents=True)
        file.touch()
        assert published.find(None) == file
        file.unlink()


class Trap:
    def __reduce__(self):
        return print, ("sprung",)


@pytest.mark.parametrize("content", [b"not weights", b"", {"w": Trap()}, {"w": 3}, [torch.ones(1)]])
def test_files_without_weights_are_refused_and_nothing_is_unpickled(content, tmp_path, capsys):
    path = tmp_path / "weights.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=r"weights\.pth' (cannot be read|holds more)") as error:
        weights.read(path)
    assert "\n" not in str(error.value) and "sprung" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["inception", "lite0", "dinov2", "clip", "vgg16"])
def test_weights_of_another_network_are_refused(name, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"layer.weight": torch.ones(2, 2)}, path)
    with pytest.raises(UserError, match=r"weights\.pth' (holds no|does not hold) .*, as it lacks '"):
        EXTRACTORS[name](path)


@pytest.mark.parametrize(("kind", "open_it"), [("dinov2", open_dinov2), ("clip", open_clip)])
def test_a_transformer_of_another_shape_is_refused(kind, open_it, tmp_path):
    weights, _ = transformer(kind == "clip")
    if kind == "clip":
        weights = under_hugging_face_names(weights)
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=f"another transformer than {kind}'s .width 128, not 1024, blocks 2, not 24"):
        open_it(tmp_path / "other.safetensors")


def under_hugging_face_names(weights):
    """CLIP's tensors as Hugging Face names them, with query, key and value apart."""
    found = {"visual_projection.weight": weights["projection"]}
    for name, values in weights.items():
        if "qkv" in name:
            block, kind = name.split(".")[1], name.rpartition(".")[2]
            for part, each in zip("qkv", values.chunk(3), strict=True):
                found[f"vision_model.encoder.layers.{block}.self_attn.{part}_proj.{kind}"] = each.clone()
        elif name != "projection":
            found[f"vision_model.{name}"] = values
    return found
