# %% [markdown]
# # 5. Attack someone else's model
#
# You are given a model. How robust is it, and can you trust the number? Here the model is a plain PyTorch module that
# we train ourselves, so that nothing has to be downloaded; the rest works the same for any other model.
#
# It takes about half a minute on one core.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import rivals
from rivals import Linf

BLUE, RED, GREEN = "#0072b2", "#d55e00", "#009e73"
runs = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The model
#
# Its author normalizes the images outside of the model, as many do: it expects images minus the mean, divided by the
# standard deviation. It knows nothing about Rivals.

# %%
MEAN, STD = 0.13, 0.31


class TheirModel(nn.Module):
    """Maps normalized images (n, 1, 28, 28) to logits (n, 10)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 5 * 5, 64), nn.ReLU(), nn.Linear(64, 10)),
        )

    def forward(self, normalized):
        return self.body(normalized)


torch.manual_seed(0)
model = TheirModel()
data = rivals.load_images("mnist5k")
images, labels = torch.from_numpy(data.images) / 255, torch.from_numpy(data.labels)
adam = torch.optim.Adam(model.parameters(), lr=2e-3)
for _epoch in range(5):
    for batch in torch.randperm(len(images)).split(64):
        loss = cross_entropy(model((images[batch] - MEAN) / STD), labels[batch])
        adam.zero_grad()
        loss.backward()
        adam.step()
model.eval()
print(f"loss of the last batch: {loss.item():.3f} nats")

# %% [markdown]
# ## Put the normalization inside
#
# An attack must work on images in [0, 1]. Only then does eps mean what it says, and only then is clipping to [0, 1] the
# same as staying a valid image. So pass the mean and the standard deviation to `evaluate`, which wraps the model for
# you.
#
# What if you forget? The model still runs, but the numbers are meaningless.

# %%
without = rivals.evaluate(model, "mnist5k", Linf(0.1), attack="fgsm", n=200, alarms=False, quiet=True)
normalized = rivals.evaluate(
    model, "mnist5k", Linf(0.1), attack="fgsm", n=200, mean=[MEAN], std=[STD], alarms=False, quiet=True
)
print("without normalization: clean", without.clean)
print("with normalization:    clean", normalized.clean)

# %% [markdown]
# If the clean accuracy is not what the author reports, stop and check the normalization first, then the order of the
# channels and of the classes.
#
# ## A proper evaluation
#
# **AutoAttack** is the standard: several attacks in sequence, each run only on the images that are still robust. You
# give a model, data, a threat model (the ball) and the number of images. Smaller radii (`curve`) cost little: an
# adversarial example in a small ball is also one in a larger ball.
#
# `autoattack-swift` is a light version with about an eighth of the passes; `autoattack` is the published one, for
# numbers to compare with others.

# %%
report = rivals.evaluate(
    model,
    "mnist5k",
    Linf(0.1),
    attack="autoattack-swift",
    curve=(0.02, 0.04, 0.06, 0.08),
    n=100,
    mean=[MEAN],
    std=[STD],
    out=runs / "attack",
    quiet=True,
)
print("clean          ", report.clean)
print("robust         ", report.robust)
print("  in 8 bits    ", report.robust_8bit)
print("verdict        ", report.verdict)

# %% [markdown]
# ## Reading the report
#
# - **robust**: robust accuracy, the share classified correctly under every attack. The brackets hold the 95 %
#   confidence interval, which is wide for 100 images.
# - **in 8 bits**: some adversarial examples are so close to the decision boundary that rounding to 8 bits, as an image
#   file does, undoes them.
# - **verdict**: whether there are signs that the *attack* failed, rather than that the model is robust.
#
# It also reports each attack's contribution and each class's robust accuracy:

# %%
for name, stage in report.stages.items():
    print(f"{name:12} fooled {stage.fooled:3} of {stage.attacked:3}, {stage.backwards:6,} backward passes (images)")

_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
radii = [eps for eps, _ in report.curve]
low, high = zip(*(share.interval for _, share in report.curve), strict=True)
left.fill_between(radii, low, high, color=BLUE, alpha=0.2, linewidth=0)
left.plot(radii, [share.value for _, share in report.curve], "o-", color=BLUE)
left.set(xlabel="eps (pixels in [0, 1])", ylabel="robust accuracy", ylim=(0, 1))
right.bar([each.name for each in report.classes], [each.robust.value for each in report.classes], color=BLUE)
right.set(xlabel="class", ylabel=f"robust accuracy, eps {radii[-1]}", ylim=(0, 1))
for axis in (left, right):
    axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# The run folder holds `report.html` and the adversarial examples. Here are some, before and after:

# %%
adversarial = np.load(runs / "attack" / "adversarial.npz")
test = rivals.load_images("mnist5k", split="test")
_, axes = plt.subplots(2, 8, figsize=(10, 3), layout="constrained")
for column in range(8):
    number = len(adversarial["eps"]) * column // 8
    original = test.images[adversarial["index"][number]][0]
    for axis, image in ((axes[0, column], original), (axes[1, column], adversarial["x_adv"][number][0])):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        axis.set(xticks=[], yticks=[])
    axes[0, column].set_title(f"label {adversarial['label'][number]}")
    title = f"'{adversarial['prediction'][number]}' at {adversarial['eps'][number]:.2f}"
    axes[1, column].set_title(title, color=RED)
plt.show()

# %% [markdown]
# ## A defense that does not work
#
# The author comes back with a "defense": images are quantized to five gray levels before the network, so that small
# perturbations vanish. Under PGD, with twice the radius from before, it looks excellent.


# %%
class Quantized(nn.Module):
    """Quantizes images in [0, 1] to five gray levels, normalizes them and applies the model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def quantize(self, x):
        return (x * 4).round() / 4

    def forward(self, x):
        return self.model((self.quantize(x) - MEAN) / STD)


defended = Quantized(model).eval()
ball = Linf(0.2)
x, y = torch.from_numpy(test.images[::5]) / 255, torch.from_numpy(test.labels[::5])
x_adv = rivals.attacks.pgd(defended, x, y, ball, steps=40, seed=0)
with torch.no_grad():
    pgd_accuracy = (defended(x_adv).argmax(1) == y).float().mean().item()
print(f"accuracy under PGD: {pgd_accuracy:.0%} of {len(x)} images")

# %% [markdown]
# `evaluate` does not take such a number at face value. Before it attacks, it checks for signs that an attack would fail
# for the wrong reason.

# %%
checked = rivals.evaluate(defended, "mnist5k", ball, attack="pgd(steps=40)", n=100, quiet=True)
for alarm in checked.alarms:
    print(f"alarm {alarm['alarm']}: {alarm['message']}\n  {alarm['remedy']}")
for note in checked.notes:
    print("note:", note)
print("robust", checked.robust, "- attacked by", ", ".join(checked.stages))

# %% [markdown]
# Quantization is flat nearly everywhere: its gradient is zero, so gradient-based attacks make no progress. The images
# are not hard to attack; the gradient is only hidden. This is **gradient masking** (Athalye et al. 2018). So `evaluate`
# used **Square** instead, a black-box attack that needs only the model's outputs.
#
# There is a second way: approximate the gradient. In the backward pass, replace the quantization by the identity
# (BPDA). A custom attack is a function; `evaluate` evaluates its images on the original model.


# %%
class StraightThrough(Quantized):
    """The same outputs; in the backward pass quantization is the identity (BPDA, Athalye et al. 2018)."""

    def quantize(self, x):
        return x + (super().quantize(x) - x).detach()


surrogate = StraightThrough(model).eval()


def bpda(model, x, y, ball, *, seed, batch_size, targets):
    """PGD with the surrogate's gradients; `evaluate` checks the images on the original model."""
    return rivals.attacks.pgd(surrogate, x, y, ball, steps=40, restarts=2, seed=seed, batch_size=batch_size)


adaptive = rivals.evaluate(defended, "mnist5k", ball, attack=bpda, n=100, alarms=False, quiet=True)
print("robust", adaptive.robust, "under PGD with BPDA")

_, axis = plt.subplots(figsize=(7, 2.2), layout="constrained")
accuracies = {"PGD": pgd_accuracy, "Square": checked.robust.value, "PGD with BPDA": adaptive.robust.value}
axis.barh(list(accuracies), list(accuracies.values()), color=[RED, BLUE, BLUE])
axis.set(xlabel=f"robust accuracy at eps {ball.eps}", xlim=(0, 1))
axis.invert_yaxis()
axis.grid(alpha=0.2, axis="x")
plt.show()

# %% [markdown]
# The defense never worked. A robust accuracy is an upper bound: it reports what the best of *your* attacks could not
# fool. So read the verdict before you read the number.
#
# ## Other models
#
# - `rivals attack torchvision:resnet50 my-photos/ --eps 4/255 -n 500` fetches the model, its weights and its
#   normalization.
# - `rivals attack timm:vit_tiny_patch16_224 my-photos/ --eps 1/255`, if timm is installed.
# - For what is *proven* rather than not yet broken: [Certification](../../docs/certification.md).
# - All attacks and alarms: [Attacks](../../docs/attacks.md).
