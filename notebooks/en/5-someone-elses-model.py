# %% [markdown]
# # 5. Attack someone else's model
#
# You are handed a model. How robust is it, and can you believe the number? Here the stranger is a plain PyTorch module
# that we train ourselves, so that nothing has to be downloaded; what follows is the same for any other.
#
# It takes about half a minute of one processor core.

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
# ## The stranger
#
# Its author normalises the images outside of the model, as many do: it wants them less the mean, divided by the
# standard deviation. Nothing in it knows of Rivals.

# %%
MEAN, STD = 0.13, 0.31


class Stranger(nn.Module):
    """Normalised images (n, 1, 28, 28) to logits (n, 10)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 5 * 5, 64), nn.ReLU(), nn.Linear(64, 10)),
        )

    def forward(self, normalised):
        return self.body(normalised)


torch.manual_seed(0)
stranger = Stranger()
data = rivals.load_images("mnist5k")
images, labels = torch.from_numpy(data.images) / 255, torch.from_numpy(data.labels)
adam = torch.optim.Adam(stranger.parameters(), lr=2e-3)
for _epoch in range(5):
    for batch in torch.randperm(len(images)).split(64):
        loss = cross_entropy(stranger((images[batch] - MEAN) / STD), labels[batch])
        adam.zero_grad()
        loss.backward()
        adam.step()
stranger.eval()
print(f"loss of the last batch: {loss.item():.3f} nats")

# %% [markdown]
# ## Put the normalisation inside
#
# An attack must work on images as they are, from 0 to 1. Only then does eps mean what it says, and only then is "still
# an image" the same as "between 0 and 1". So tell `evaluate` the mean and the deviation, and it wraps the model for
# you.
#
# What if you forget? The model still runs. Only the numbers are about something else.

# %%
forgot = rivals.evaluate(stranger, "mnist5k", Linf(0.1), attack="fgsm", n=200, alarms=False, quiet=True)
told = rivals.evaluate(
    stranger, "mnist5k", Linf(0.1), attack="fgsm", n=200, mean=[MEAN], std=[STD], alarms=False, quiet=True
)
print("forgotten: clean", forgot.clean)
print("told:      clean", told.clean)

# %% [markdown]
# If the clean accuracy is not what the author promises, stop and look for the normalisation first, then for the order
# of the channels and of the classes.
#
# ## A proper evaluation
#
# **AutoAttack** is the standard: several attacks one after the other, each facing only the images that are left. What
# you give is a model, data, a ball and how many images. Smaller radii on the way (`curve`) cost little: an image that
# fell in a small ball has fallen in a larger one.
#
# `autoattack-swift` is a light version of it, with about an eighth of the passes; `autoattack` is the published one,
# for numbers that others compare with.

# %%
report = rivals.evaluate(
    stranger,
    "mnist5k",
    Linf(0.1),
    attack="autoattack-swift",
    curve=(0.02, 0.04, 0.06, 0.08),
    n=100,
    mean=[MEAN],
    std=[STD],
    out=runs / "stranger",
    quiet=True,
)
print("clean          ", report.clean)
print("robust         ", report.robust)
print("  in 8 bits    ", report.rounded)
print("verdict        ", report.verdict)

# %% [markdown]
# ## Reading the report
#
# - **robust**: the share that is classified rightly and that no attack has felled. In brackets the 95 % interval: from
#   100 images it is wide.
# - **in 8 bits**: some adversarial images lie so close to the border that saving them as a picture undoes them.
# - **verdict**: whether there are signs that the *attack* failed rather than the model stood.
#
# Each part of the attack says what it contributed, and each class how it fares:

# %%
for name, part in report.parts.items():
    print(f"{name:12} felled {part.felled:3} of {part.attacked:3}, {part.backwards:6,} images passed backward")

_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
radii = [eps for eps, _ in report.curve]
low, high = zip(*(share.interval for _, share in report.curve), strict=True)
left.fill_between(radii, low, high, color=BLUE, alpha=0.2, linewidth=0)
left.plot(radii, [share.value for _, share in report.curve], "o-", color=BLUE)
left.set(xlabel="eps, share of the range from black to white", ylabel="share that stands", ylim=(0, 1))
right.bar([each.name for each in report.classes], [each.robust.value for each in report.classes], color=BLUE)
right.set(xlabel="class", ylabel=f"share that stands, eps {radii[-1]}", ylim=(0, 1))
for axis in (left, right):
    axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# The run's folder keeps a page, `report.html`, and the images that fell. Here are some, before and after:

# %%
felled = np.load(runs / "stranger" / "adversarial.npz")
test = rivals.load_images("mnist5k", split="test")
_, axes = plt.subplots(2, 8, figsize=(10, 3), layout="constrained")
for column in range(8):
    number = len(felled["eps"]) * column // 8
    original = test.images[felled["index"][number]][0]
    for axis, image in ((axes[0, column], original), (axes[1, column], felled["x_adv"][number][0])):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        axis.set(xticks=[], yticks=[])
    axes[0, column].set_title(f"a {felled['label'][number]}")
    axes[1, column].set_title(f"'{felled['said'][number]}' at {felled['eps'][number]:.2f}", color=RED)
plt.show()

# %% [markdown]
# ## A defence that is none
#
# The stranger comes back with a "defence": the images are rounded to five greys before the network sees them, so that
# small changes vanish. Attacked by PGD, with twice the radius from before, it looks splendid.


# %%
class Rounded(nn.Module):
    """Images in [0, 1], rounded to five greys, then normalised and handed to the stranger."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def grey(self, x):
        return (x * 4).round() / 4

    def forward(self, x):
        return self.model((self.grey(x) - MEAN) / STD)


defended = Rounded(stranger).eval()
ball = Linf(0.2)
x, y = torch.from_numpy(test.images[::5]) / 255, torch.from_numpy(test.labels[::5])
x_adv = rivals.attacks.pgd(defended, x, y, ball, steps=40, seed=0)
with torch.no_grad():
    naive = (defended(x_adv).argmax(1) == y).float().mean().item()
print(f"{naive:.0%} of {len(x)} images stand, or so it seems")

# %% [markdown]
# `evaluate` does not take such a number on trust. Before it attacks, it looks for signs that an attack would fail by
# itself.

# %%
judged = rivals.evaluate(defended, "mnist5k", ball, attack="pgd(steps=40)", n=100, quiet=True)
for alarm in judged.alarms:
    print(f"alarm {alarm['alarm']}: {alarm['says']}\n  {alarm['remedy']}")
for note in judged.notes:
    print("note:", note)
print("robust", judged.robust, "- felled by", ", ".join(judged.parts))

# %% [markdown]
# A rounding is flat nearly everywhere: its gradient is zero, so attacks that follow gradients stand still. The images
# are not hard to fool; the way to them is only hidden. This is **gradient masking** (Athalye et al. 2018). So
# `evaluate` took **Square** instead, which asks for answers only, never for a gradient.
#
# There is a second way round: **go through**. Where the rounding hides the gradient, pretend on the way back that it
# was not there. An attack of your own is a function; `evaluate` judges what it makes by the model that was given.


# %%
class SeenThrough(Rounded):
    """The same answers; backward, the rounding counts as the identity (BPDA, Athalye et al. 2018)."""

    def grey(self, x):
        return x + (super().grey(x) - x).detach()


guide = SeenThrough(stranger).eval()


def through(model, x, y, ball, *, seed, batch_size, targets):
    """PGD on the model that lets gradients pass; `evaluate` judges its images by the model that was given."""
    return rivals.attacks.pgd(guide, x, y, ball, steps=40, restarts=2, seed=seed, batch_size=batch_size)


through_it = rivals.evaluate(defended, "mnist5k", ball, attack=through, n=100, alarms=False, quiet=True)
print("robust", through_it.robust, "against PGD that sees through")

_, axis = plt.subplots(figsize=(7, 2.2), layout="constrained")
found = {"PGD, taken on trust": naive, "Square": judged.robust.value, "PGD, seeing through": through_it.robust.value}
axis.barh(list(found), list(found.values()), color=[RED, BLUE, BLUE])
axis.set(xlabel=f"share that stands at eps {ball.eps}", xlim=(0, 1))
axis.invert_yaxis()
axis.grid(alpha=0.2, axis="x")
plt.show()

# %% [markdown]
# The defence was never there. A robust accuracy is an upper bound: it tells what the best of *your* attacks could not
# fell. So look at the verdict before you look at the number.
#
# ## Other strangers
#
# - `rivals attack torchvision:resnet50 my-photos/ --eps 4/255 -n 500` fetches the model, its weights and its
#   normalisation.
# - `rivals attack timm:vit_tiny_patch16_224 my-photos/ --eps 1/255`, if timm is installed.
# - What is *proven* rather than not yet broken: [Certification](../../docs/certification.md).
# - All attacks and alarms: [Attacks](../../docs/attacks.md).
