# %% [markdown]
# # 1. From a fooled classifier to a robust one
#
# A network classifies digits with high accuracy. Then we change every pixel by a small, deliberate amount, and it
# misclassifies most of them. This notebook shows how such **adversarial examples** are made, why they work, and what
# helps: training on them.
#
# The only data are the 5,000 digits that ship with the package. It takes about a minute and a half on one core.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy

import rivals
from rivals import Linf
from rivals.attacks import augment, fgsm, noise, pgd
from rivals.reports.image_grid import make_grid

BLUE, RED, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
runs = Path(tempfile.mkdtemp())

test = rivals.load_images("mnist5k", split="test")
x = torch.from_numpy(test.images) / 255  # (500, 1, 28, 28), from 0 (black) to 1 (white)
y = torch.from_numpy(test.labels)  # (500,)
print("test images", tuple(x.shape), "labels", tuple(y.shape))
make_grid(test.images[::25], columns=10)

# %% [markdown]
# ## A plain classifier
#
# A small convolutional network is trained on 4,500 digits; the other 500 are the test set.

# %%
NET = {"widths": (8, 16), "seed": 0, "quiet": True}
plain = rivals.classify("mnist5k", until="8 epochs", lr=2e-3, out=runs / "plain", **NET).classifier


def accuracy(model, images):
    """The share of the test set that is classified correctly."""
    with torch.no_grad():
        return (model(images).argmax(1) == y).float().mean().item()


print(f"test accuracy {accuracy(plain, x):.1%}")

# %% [markdown]
# ## The fast gradient sign method
#
# Training uses the gradient of the loss with respect to the *weights*: in which direction does the loss fall? The
# gradient with respect to the *image* answers the opposite question: in which direction does each pixel make the loss
# **rise**?
#
# The fast gradient sign method (FGSM, Goodfellow et al. 2015) takes the sign of that gradient and moves every pixel up
# or down by the same small amount eps.

# %%
EPS = 0.2  # pixels run from 0 to 1


def fgsm_by_hand(model, images, labels, eps):
    """Images (n, C, H, W) in [0, 1], each pixel moved by eps along the sign of its gradient, then clipped to [0, 1]."""
    images = images.clone().requires_grad_()
    loss = cross_entropy(model(images), labels)
    (gradient,) = torch.autograd.grad(loss, images)
    return (images.detach() + eps * gradient.sign()).clamp(0, 1)


x_by_hand = fgsm_by_hand(plain, x, y, EPS)
print(f"accuracy {accuracy(plain, x):.1%}, under FGSM at eps {EPS}: {accuracy(plain, x_by_hand):.1%}")
x_fgsm = fgsm(plain, x, y, Linf(EPS))
print(f"under rivals.attacks.fgsm: {accuracy(plain, x_fgsm):.1%}")

# %% [markdown]
# You can still read every digit. The network misclassifies most of them.


# %%
def show(rows, titles, count=8):
    """Rows of images, each with the plain network's prediction, red if wrong."""
    _, axes = plt.subplots(len(rows), count, figsize=(1.25 * count, 1.55 * len(rows)), layout="constrained")
    for row, (images, title) in enumerate(zip(rows, titles, strict=True)):
        with torch.no_grad():
            predictions = plain(images[::61]).argmax(1)
        for axis, image, prediction, label in zip(axes[row], images[::61], predictions, y[::61], strict=False):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"'{prediction}'", color="black" if prediction == label else RED, fontsize=11)
            axis.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(title, fontsize=9)
    plt.show()


show([x, x_by_hand], ["original", f"FGSM, eps {EPS}"])

# %% [markdown]
# ## Does any perturbation work?
#
# Is the network simply sensitive to any perturbation of that size? We compare four:
#
# - **Noise** moves each pixel at random by up to eps.
# - **Augmentation** shifts, rotates, crops and brightens the image; the worst of ten tries counts. It is not bounded by
#   eps.
# - **FGSM** takes the one step above.
# - **PGD** (projected gradient descent) takes many small gradient steps and projects back into the eps ball.

# %%
ball = Linf(EPS)  # no pixel may change by more than EPS
ATTACKS = {
    "none": lambda model: x,
    "noise": lambda model: noise(model, x, y, ball, seed=0),
    "augmentation": lambda model: augment(model, x, y, trials=10, seed=0),
    "FGSM": lambda model: fgsm(model, x, y, ball),
    "PGD, 10 steps": lambda model: pgd(model, x, y, ball, steps=10, seed=0),
}
for name, attack in ATTACKS.items():
    print(f"{name:14} accuracy {accuracy(plain, attack(plain)):6.1%}")
show([ATTACKS[name](plain) for name in ("noise", "augmentation", "FGSM")], ["noise", "augmentation", "FGSM"])

# %% [markdown]
# Noise has almost no effect. The worst of ten augmentations does fool the network, because it has only seen upright,
# centered digits; training data can fix that. The gradient is different: with perturbations no larger than the noise,
# it fools the network on nearly every image.
#
# ## Why the gradient is so much stronger than noise
#
# Along one direction, a network is almost linear. If each of 784 pixels pushes the loss in the *same* direction, the
# effects add up: eps times 784 times the mean absolute gradient. With random signs they mostly cancel.
#
# The figure shows the loss on the test images along the signs of the gradient and along random signs.

# %%
signs = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
gradient_signs = (fgsm_by_hand(plain, x, y, 1e-6) - x).sign()
steps = torch.linspace(0, 0.3, 16)
_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for direction, color, label in ((gradient_signs, RED, "signs of the gradient"), (signs, BLUE, "random signs")):
    with torch.no_grad():
        losses = [cross_entropy(plain(x + step * direction), y).item() for step in steps]
    axis.plot(steps, losses, "o-", markersize=3, color=color, label=label)
axis.set(xlabel="eps (pixels in [0, 1])", ylabel="mean loss, nats")
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# ## Adversarial training
#
# Training minimizes the loss over the weights; an attack maximizes it over the pixels. Together they are a min-max
# game:
#
# > minimize over the weights the mean of the **maximum** loss over perturbations within eps
#
# This is **adversarial training** (Madry et al. 2018): attack each batch with the current weights, then train on the
# adversarial examples. Here is the whole loop, for a few batches.

# %%
train = rivals.load_images("mnist5k", split="train")
net = rivals.load(runs / "plain")
net.train().requires_grad_(True)
adam = torch.optim.Adam(net.parameters(), lr=1e-3)
order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
for batch in order[:2560].split(128):
    images = torch.from_numpy(train.images)[batch] / 255
    labels = torch.from_numpy(train.labels)[batch]
    x_adv = fgsm_by_hand(net, images, labels, EPS)  # maximize over the pixels
    adam.zero_grad()
    cross_entropy(net(x_adv), labels).backward()  # minimize over the weights
    adam.step()
net.eval()
print(f"accuracy under FGSM: before {accuracy(plain, x_fgsm):.1%}, ", end="")
print(f"after 20 batches {accuracy(net, fgsm(net, x, y, ball)):.1%}")

# %% [markdown]
# ## What to train on
#
# `rivals.harden` runs this game in full and monitors it. Three copies of the plain network are trained further for the
# same number of epochs: on noise, on augmented images, and on adversarial examples. The last come from N-FGSM: noise
# first, then one step. Without the noise, single-step training can fail by *catastrophic overfitting*: the network
# becomes robust to that one step only.

# %%
START = {"weights": str(runs / "plain"), "until": "5 epochs", "optimizer": "adam", "lr": 2e-3, **NET}
noise_trained = rivals.harden("mnist5k", ball, method="noise", out=runs / "noise", **START).classifier
augment_trained = rivals.harden("mnist5k", ball, method="augment", out=runs / "augment", **START).classifier
hardened = rivals.harden(
    "mnist5k", ball, method="fgsm", start="nfgsm", step_size=1.0, out=runs / "gradient", **START
).classifier

models = {"plain images": plain, "noise": noise_trained, "augmentation": augment_trained, "N-FGSM": hardened}
table = torch.tensor([[accuracy(model, attack(model)) for attack in ATTACKS.values()] for model in models.values()])
_, axis = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
axis.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto")
for (row, column), value in zip(torch.cartesian_prod(torch.arange(4), torch.arange(5)), table.flatten(), strict=True):
    axis.text(column, row, f"{value:.0%}", ha="center", va="center", color="black" if value > 0.5 else "white")
axis.set_xticks(range(5), ATTACKS)
axis.set_yticks(range(4), models)
axis.set(xlabel="attack", ylabel="trained on", title=f"accuracy on 500 test images, eps {EPS}")
plt.show()

# %% [markdown]
# Read it by columns. Noise harms no model, and training on noise helps little against anything else. Training on
# augmented images helps against augmentation. Against gradient attacks, only training on gradient attacks helps: the
# other images do not cover the directions that matter.
#
# The cost in clean accuracy is small.
#
# ## Before and after, at every eps

# %%
CURVE = (0.05, 0.1, 0.15)
before = rivals.evaluate(plain, "mnist5k", ball, attack="pgd(steps=20)", curve=CURVE, n=200, quiet=True)
after = rivals.evaluate(hardened, "mnist5k", ball, attack="pgd(steps=20)", curve=CURVE, n=200, quiet=True)
_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for report, color, label in ((before, RED, "plain"), (after, BLUE, "adversarially trained")):
    radii = [eps for eps, _ in report.curve]
    low, high = zip(*(share.interval for _, share in report.curve), strict=True)
    axis.fill_between(radii, low, high, color=color, alpha=0.2, linewidth=0)
    axis.plot(radii, [share.value for _, share in report.curve], "o-", color=color, label=label)
axis.set(xlabel="eps (pixels in [0, 1])", ylabel="robust accuracy", ylim=(0, 1))
axis.legend()
axis.grid(alpha=0.2)
plt.show()
print(f"at eps {EPS}: plain {before.robust}, hardened {after.robust}")
print("hardened:", after.verdict)

# %% [markdown]
# The bands are 95 % confidence intervals, which are wide for 200 images.
#
# ## Input gradients
#
# The gradient of the loss with respect to the pixels shows what a prediction depends on. For the plain network it is
# scattered, partly away from the digit. For the adversarially trained one it follows the strokes: to change the
# prediction, one has to change the digit.


# %%
def input_gradients(model, images, labels):
    """The gradient of the loss with respect to the images, each scaled to [-1, 1]."""
    images = images.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(cross_entropy(model(images), labels, reduction="sum"), images)
    return gradients / gradients.abs().amax((1, 2, 3), keepdim=True)


some, labels = x[::61][:8], y[::61][:8]
_, axes = plt.subplots(3, 8, figsize=(10, 4.2), layout="constrained")
rows = {
    "image": some,
    "plain": input_gradients(plain, some, labels),
    "hardened": input_gradients(hardened, some, labels),
}
for row, (title, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(row, images, strict=True):
        scale = {"cmap": "gray", "vmin": 0} if title == "image" else {"cmap": "PuOr", "vmin": -1}
        axis.imshow(image[0], vmax=1, **scale)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(title)
plt.show()

# %% [markdown]
# ## Next
#
# - Stronger training: `rivals harden mnist --eps 0.3 --method pgd --until "20 epochs"`. See
#   [Hardening](../../docs/hardening.md) for all methods and what is monitored.
# - A robust accuracy is only as good as the attack behind it: notebook 5.
# - Another two-network game, which generates images: notebook 2.
