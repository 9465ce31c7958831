# %% [markdown]
# # 1. From a fooled classifier to a robust one
#
# A network learns to read digits and is right nearly always. Then we change each pixel a little, on purpose, and it is
# wrong most of the time. We look at how that is done, why it works, and what helps: to train on such pictures.
#
# No data are needed but the 5,000 digits that come with the package. It takes about a minute and a half of one
# processor core.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy

import rivals
from rivals import Linf
from rivals.attacks import augment, fgsm, noise, pgd
from rivals.reports.sheet import grid

BLUE, RED, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
runs = Path(tempfile.mkdtemp())

test = rivals.load_images("mnist5k", split="test")
x = torch.from_numpy(test.images) / 255  # (500, 1, 28, 28), from 0 (black) to 1 (white)
y = torch.from_numpy(test.labels)  # (500,)
print("test images", tuple(x.shape), "labels", tuple(y.shape))
grid(test.images[::25], columns=10)

# %% [markdown]
# ## A plain classifier
#
# A small convolutional network learns from 4,500 digits. The 500 test digits are others.

# %%
NET = {"widths": (8, 16), "seed": 0, "quiet": True}
plain = rivals.classify("mnist5k", until="8 epochs", lr=2e-3, out=runs / "plain", **NET).classifier


def right(model, images):
    """The share of test images that a model classifies rightly."""
    with torch.no_grad():
        return (model(images).argmax(1) == y).float().mean().item()


print(f"right on {right(plain, x):.1%} of the test images")

# %% [markdown]
# ## The fast gradient sign method
#
# A network learns by asking: in which direction must the *weights* move so that the loss falls? The same gradient can
# be asked about the *image*: in which direction must each pixel move so that the loss **rises**?
#
# The fast gradient sign method (Goodfellow et al. 2015) takes the sign of that gradient and moves every pixel by the
# same small amount eps, up or down. That is all.

# %%
EPS = 0.2  # pixels run from 0 to 1


def fgsm_by_hand(model, images, labels, eps):
    """One step up the loss, in every pixel by eps; still an image, so from 0 to 1."""
    images = images.clone().requires_grad_()
    loss = cross_entropy(model(images), labels)
    (gradient,) = torch.autograd.grad(loss, images)
    return (images.detach() + eps * gradient.sign()).clamp(0, 1)


stepped = fgsm_by_hand(plain, x, y, EPS)
print(f"right before {right(plain, x):.1%}, after one step of {EPS}: {right(plain, stepped):.1%}")
library = fgsm(plain, x, y, Linf(EPS))
print(f"by rivals.attacks.fgsm: {right(plain, library):.1%}")

# %% [markdown]
# You still read every one of these digits. The network fails on most of them.


# %%
def show(rows, titles, count=8):
    """Rows of images; above each, what the plain network takes it for, red where that is wrong."""
    _, axes = plt.subplots(len(rows), count, figsize=(1.25 * count, 1.55 * len(rows)), layout="constrained")
    for line, (images, title) in enumerate(zip(rows, titles, strict=True)):
        with torch.no_grad():
            said = plain(images[::61]).argmax(1)
        for axis, image, answer, label in zip(axes[line], images[::61], said, y[::61], strict=False):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"'{answer}'", color="black" if answer == label else RED, fontsize=11)
            axis.set(xticks=[], yticks=[])
        axes[line, 0].set_ylabel(title, fontsize=9)
    plt.show()


show([x, stepped], ["original", f"one step, eps {EPS}"])

# %% [markdown]
# ## Is any change enough?
#
# Is the network just nervous, so that any change of that size would do? Let us try four:
#
# - **Noise** moves every pixel by up to eps, in random directions.
# - **Augmentation** shifts, turns, crops and brightens the whole picture; the worst of ten tries counts. It is bound
#   to no eps.
# - **FGSM** takes the one step from above.
# - **PGD** follows the gradient as well, in many small steps, none of which leaves the reach of eps.

# %%
ball = Linf(EPS)  # all images in which no pixel differs from the original by more than EPS
ATTACKS = {
    "nothing": lambda model: x,
    "noise": lambda model: noise(model, x, y, ball, seed=0),
    "augmentation": lambda model: augment(model, x, y, trials=10, seed=0),
    "FGSM": lambda model: fgsm(model, x, y, ball),
    "PGD, 10 steps": lambda model: pgd(model, x, y, ball, steps=10, seed=0),
}
for name, attack in ATTACKS.items():
    print(f"{name:14} {right(plain, attack(plain)):6.1%} right")
show([ATTACKS[name](plain) for name in ("noise", "augmentation", "FGSM")], ["noise", "augmentation", "FGSM"])

# %% [markdown]
# Noise is nothing to it. The worst of ten shifts and turns does fool it: it has only ever met digits upright and in
# the middle. That is ignorance, and it can be taught. The gradient is another matter: with changes no larger than the
# noise, it fells nearly everything.
#
# ## Why the gradient is so much stronger than noise
#
# Along one direction, a network is nearly a straight line. If each of 784 pixels adds a little in the *same* sense, it
# adds up: eps times 784 times the mean slope. Random signs mostly cancel.
#
# The figure shows it: the loss of the test images, as we walk away from them along the signs of the gradient, and
# along random signs.

# %%
signs = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
slopes = (fgsm_by_hand(plain, x, y, 1e-6) - x).sign()
steps = torch.linspace(0, 0.3, 16)
_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for direction, colour, label in ((slopes, RED, "signs of the gradient"), (signs, BLUE, "random signs")):
    with torch.no_grad():
        losses = [cross_entropy(plain(x + step * direction), y).item() for step in steps]
    axis.plot(steps, losses, "o-", markersize=3, color=colour, label=label)
axis.set(xlabel="distance eps, share of the range from black to white", ylabel="mean loss, nats")
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# ## The game
#
# Training makes the loss small by moving the weights. An attack makes it large by moving the pixels. Let both play:
#
# > minimise over the weights the mean of: the **maximum**, over changes within eps, of the loss
#
# This is **adversarial training** (Madry et al. 2018): attack each batch afresh, and learn from the attacked images.
# Here is its whole loop by hand, for a few batches.

# %%
train = rivals.load_images("mnist5k", split="train")
net = rivals.load(runs / "plain")
net.train().requires_grad_(True)
adam = torch.optim.Adam(net.parameters(), lr=1e-3)
order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
for batch in order[:2560].split(128):
    images = torch.from_numpy(train.images)[batch] / 255
    labels = torch.from_numpy(train.labels)[batch]
    attacked = fgsm_by_hand(net, images, labels, EPS)  # the attack's move
    adam.zero_grad()
    cross_entropy(net(attacked), labels).backward()  # the classifier's move
    adam.step()
net.eval()
print(
    f"after 20 batches: {right(net, fgsm(net, x, y, ball)):.1%} stand against FGSM, before {right(plain, library):.1%}"
)

# %% [markdown]
# ## What to learn from
#
# `rivals.harden` plays this game in full, and watches it. Three copies of the plain network learn on, for as many
# epochs each: from noise, from augmented images, and from the gradient's images. The last are made by N-FGSM: noise
# first, then one step. Without the noise, a classifier may learn to stand against that one step and nothing else.

# %%
START = {"weights": str(runs / "plain"), "until": "5 epochs", "optimizer": "adam", "lr": 2e-3, **NET}
noisy = rivals.harden("mnist5k", ball, method="noise", out=runs / "noise", **START).classifier
moved = rivals.harden("mnist5k", ball, method="augment", out=runs / "augment", **START).classifier
hard = rivals.harden(
    "mnist5k", ball, method="fgsm", start="beyond", step=1.0, out=runs / "gradient", **START
).classifier

models = {"plain images": plain, "noise": noisy, "augmentation": moved, "the gradient": hard}
standing = torch.tensor([[right(model, attack(model)) for attack in ATTACKS.values()] for model in models.values()])
_, axis = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
axis.imshow(standing, cmap="cividis", vmin=0, vmax=1, aspect="auto")
for (row, column), value in zip(
    torch.cartesian_prod(torch.arange(4), torch.arange(5)), standing.flatten(), strict=True
):
    axis.text(column, row, f"{value:.0%}", ha="center", va="center", color="black" if value > 0.5 else "white")
axis.set_xticks(range(5), ATTACKS)
axis.set_yticks(range(4), models)
axis.set(xlabel="attacked by", ylabel="learnt from", title=f"right on so many of 500 test images, eps {EPS}")
plt.show()

# %% [markdown]
# Read it by columns. Noise harms nobody, and who learns from noise learns little else. Augmented images teach what is
# in them. Against the gradient, only the gradient's own images help: the others show the network where the danger is
# not.
#
# It costs little on images that nobody attacks.
#
# ## Before and after, at every eps

# %%
CURVE = (0.05, 0.1, 0.15)
before = rivals.evaluate(plain, "mnist5k", ball, attack="pgd(steps=20)", curve=CURVE, n=200, quiet=True)
after = rivals.evaluate(hard, "mnist5k", ball, attack="pgd(steps=20)", curve=CURVE, n=200, quiet=True)
_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for report, colour, label in ((before, RED, "plain"), (after, BLUE, "trained on the gradient's images")):
    radii = [eps for eps, _ in report.curve]
    low, high = zip(*(share.interval for _, share in report.curve), strict=True)
    axis.fill_between(radii, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.plot(radii, [share.value for _, share in report.curve], "o-", color=colour, label=label)
axis.set(xlabel="eps, share of the range from black to white", ylabel="share that stands", ylim=(0, 1))
axis.legend()
axis.grid(alpha=0.2)
plt.show()
print(f"at eps {EPS}: plain {before.robust}, hardened {after.robust}")
print("hardened:", after.verdict)

# %% [markdown]
# The bands are 95 % intervals: 200 images tell no more than that.
#
# ## What each of them looks at
#
# The gradient of the loss for each pixel shows what a classifier's answer hangs on. The plain network's is a scatter
# of spots, some of them beside the digit. The hardened one's follows the strokes: to turn its answer, one has to
# change the digit.


# %%
def slopes_of(model, images, labels):
    """The slope of the loss for each pixel, scaled to -1..1 an image."""
    images = images.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(cross_entropy(model(images), labels, reduction="sum"), images)
    return slopes / slopes.abs().amax((1, 2, 3), keepdim=True)


some, names = x[::61][:8], y[::61][:8]
_, axes = plt.subplots(3, 8, figsize=(10, 4.2), layout="constrained")
rows = {"image": some, "plain": slopes_of(plain, some, names), "hardened": slopes_of(hard, some, names)}
for line, (title, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(line, images, strict=True):
        scale = {"cmap": "gray", "vmin": 0} if title == "image" else {"cmap": "PuOr", "vmin": -1}
        axis.imshow(image[0], vmax=1, **scale)
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(title)
plt.show()

# %% [markdown]
# ## Go on
#
# - Stronger: `rivals harden mnist --eps 0.3 --method pgd --until "20 epochs"`. [Hardening](../../docs/hardening.md)
#   has all methods, and what is watched.
# - A number is worth as much as the attack behind it: notebook 5.
# - Another game of two networks, which draws pictures: notebook 2.
