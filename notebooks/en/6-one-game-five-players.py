# %% [markdown]
# # 6. One game, five players
#
# A GAN is a game of two networks that learn in turns. Put other networks into the same game, and it becomes an attack,
# a defense, or adversarial training:
#
# | game | who learns | who is held constant |
# |---|---|---|
# | GAN | generator, discriminator | |
# | adversarial training | classifier | the attack, solved anew for each batch |
# | AdvGAN | generator of perturbations, discriminator | classifier |
# | GAN inversion | encoder | generator |
# | adversarial training against a generator | classifier, generator of perturbations | |
#
# One loop plays them all. This notebook plays four of them and asks each time: **who won, and is it true?**
#
# The classifier is one of the small models that are kept in the repository, the images are the 5,000 digits that ship
# with the package. It takes less than four minutes on one core.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import rivals
from rivals import Linf
from rivals.attacks import noise, pgd
from rivals.defenses import DefenseGAN, GANInversion

BLUE, RED, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
models = Path(rivals.__file__).parents[2] / "benchmarks" / "models"  # of a checkout
runs = Path(tempfile.mkdtemp())
ball = Linf(0.3)

test = rivals.load_images("mnist5k", split="test")
x = torch.from_numpy(test.images) / 255  # (500, 1, 28, 28), from 0 (black) to 1 (white)
y = torch.from_numpy(test.labels)  # (500,)
plain = rivals.load(models / "mnist-plain.safetensors")


@torch.no_grad()
def accuracy(model, images):
    """The share of the test set that is classified correctly."""
    return (model(images).argmax(1) == y).float().mean().item()


def show(rows, titles, columns=10):
    """Rows of images (n, 1, 28, 28) in [0, 1], each with a title."""
    _, axes = plt.subplots(len(rows), columns, figsize=(10, 1.1 * len(rows)), layout="constrained")
    for images, title, line in zip(rows, titles, axes, strict=True):
        for image, axis in zip(images, line, strict=False):
            axis.imshow(image[0].detach(), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
    plt.show()


print(f"accuracy {accuracy(plain, x):.1%}")

# %% [markdown]
# That is no proof of its quality: the model was trained on all of MNIST, and these digits come from there. What counts
# here is what an attack leaves of it.
#
# ## A generator that attacks
#
# **AdvGAN** (Xiao et al. 2018) trains a generator that maps an image to an adversarial example. It has two opponents:
# the classifier, which does not learn, and a discriminator, which tells perturbed images from clean ones:
#
# $$L = L_{\text{fool}} + \alpha L_{\text{GAN}} + \beta L_{\text{hinge}}$$
#
# The first term is the margin of the correct class over the best other one, the last keeps the perturbation small. The
# ball holds by construction: the perturbation is $\varepsilon \tanh(h)$. Like PGD, the generator is told the label
# of an image, from which it has to lead away.

# %%
advgan = rivals.train(
    "mnist5k",
    against=str(models / "mnist-plain.safetensors"),
    eps="0.3",
    until="24k images",
    out=runs / "advgan",
    device="cpu",
    quiet=True,
)
generator = advgan.generator
with torch.no_grad():
    fooling = generator(x, y)
assert ball.contains(fooling, x).all()

points = [(r["images"], r["accuracy/generator"]) for r in advgan.records() if "accuracy/generator" in r]
_, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
axis.plot(*zip(*points, strict=True), "o-", color=RED)
axis.set(
    xlabel="images seen", ylabel="accuracy, held out", ylim=(-0.03, 1.03), title="The classifier under the generator"
)
axis.grid(alpha=0.2)
plt.show()
print(f"test accuracy under the generator {accuracy(plain, fooling):.1%}")

# %%
with torch.no_grad():
    predicted = plain(fooling).argmax(1)
show([x[::50], 0.5 + (fooling - x)[::50], fooling[::50]], ["image", "perturbation", "sum"])
print("labels     ", " ".join(map(str, y[::50].tolist())))
print("predictions", " ".join(map(str, predicted[::50].tolist())))

# %% [markdown]
# ## Beside PGD
#
# PGD asks the classifier for a gradient 40 times per image. The generator asks nothing: its perturbation is one forward
# pass of a small network. What does this cost in strength? A second classifier, which was trained on PGD examples, will
# tell.

# %%
hard = rivals.load(models / "mnist-hard.safetensors")
attacks = {
    "noise": lambda model: noise(model, x, y, ball, seed=0),
    "generator": lambda model: fooling,
    "PGD-40": lambda model: pgd(model, x, y, ball, steps=40, seed=0),
}
under = {
    name: {"clean": accuracy(model, x)} | {attack: accuracy(model, make(model)) for attack, make in attacks.items()}
    for name, model in (("plain", plain), ("trained on PGD", hard))
}


def bars(groups, colors):
    """Grouped bars: a dictionary of values for each of some names."""
    _, axis = plt.subplots(figsize=(8, 2.9), layout="constrained")
    kinds = list(next(iter(groups.values())))
    width = 0.8 / len(kinds)
    for place, (kind, color) in enumerate(zip(kinds, colors, strict=False)):
        left = [group + (place - (len(kinds) - 1) / 2) * width for group in range(len(groups))]
        drawn = axis.bar(left, [each[kind] for each in groups.values()], width * 0.92, color=color, label=kind)
        axis.bar_label(drawn, fmt=lambda share: f"{share:.0%}", fontsize=8)
    axis.set(xticks=range(len(groups)), ylim=(0, 1.12), ylabel="accuracy")
    axis.set_xticklabels(groups)
    axis.legend(ncols=len(kinds), loc="upper center", bbox_to_anchor=(0.5, 1.22), frameon=False)
    axis.grid(alpha=0.2, axis="y")
    plt.show()


bars(under, ["#999999", ORANGE, RED, BLUE])

# %% [markdown]
# The generator fools all images of the model that it was trained on, at a fraction of PGD's cost. On the robust one it
# does next to nothing, while PGD still finds examples. So a generator is a fast attack on *one* model, and never a
# measure of robustness: report AutoAttack for that.
#
# In an evaluation a generator takes its place in the list of attacks. It is cheap, so it goes first, and PGD attacks
# what is left:

# %%
report = rivals.evaluate(
    plain, "mnist5k", ball, attack=f"generator:{runs / 'advgan'},pgd", n=200, alarms=False, quiet=True
)
for name, stage in report.stages.items():
    kind = name.partition(":")[0]
    print(f"{kind:10} fooled {stage.fooled:3} of {stage.attacked:3} by {stage.backwards:5,} backward passes (images)")

# %% [markdown]
# ## A generator that defends
#
# Adversarial examples are no digits. So why not replace each image by the nearest digit? **Defense-GAN** (Samangouei et
# al. 2018) takes a GAN that has learned the digits and searches its latent space, before the classifier sees the image:
#
# $$G(z^*), \quad z^* = \arg\min_z \lVert G(z) - x \rVert^2$$
#
# An **encoder** $E$ can be trained to do the search in one forward pass: $G(E(x))$. Its game has one player; the
# generator is held constant.

# %%
MLP = {"latent_dim": 32, "generator_widths": (128, 256, 512), "discriminator_widths": (512, 256)}
COMMON = {"device": "cpu", "quiet": True}
rivals.train("mnist5k", recipe="mlp", until="120k images", out=runs / "gan", **MLP, **COMMON)
rivals.train("mnist5k", invert=str(runs / "gan"), until="40k images", out=runs / "encoder", **COMMON)

gan, encoder = rivals.load(runs / "gan"), rivals.load(runs / "encoder" / "encoder.safetensors")
torch.manual_seed(0)
rows = {
    "generated": gan.sample(10, seed=0) / 255,
    "attacked": fooling[::50],
    "Defense-GAN": DefenseGAN(gan, steps=60, restarts=2)(fooling[::50]),
    "G(E(x))": GANInversion(gan, encoder)(fooling[::50]),
}
show(rows.values(), rows)

# %% [markdown]
# What comes back is what this small generator can make after a minute of training: the perturbation is gone, and with
# it much of the digit. Does it help? As most papers on defenses did at first, take the adversarial examples of the
# classifier *alone* and purify them. That is the **naive** figure. An honest attack knows the defense and goes through
# it: with the gradient of the search's last steps, with the identity in its place (BPDA, Athalye et al. 2018), or in
# the latent space itself. With `defense=` an evaluation does both.

# %%
defended = {}
for name, defense in (
    ("Defense-GAN", f"defense-gan:{runs / 'gan'}(steps=60,restarts=2)"),
    ("GAN inversion", f"gan-inversion:{runs / 'encoder'}"),
):
    result = rivals.evaluate(
        plain, "mnist5k", ball, attack="pgd", defense=defense, adaptive_steps=20, n=100, alarms=False, quiet=True
    )
    defended[name] = {
        "clean": result.clean.value,
        "naive": result.naive.value,
        "honest": result.robust.value,
    }
    print(f"{name}: " + ", ".join(f"{stage} fooled {each.fooled}" for stage, each in result.stages.items()))
bars(defended, ["#999999", GREEN, RED])
print("verdict on the last:", result.verdict)

# %% [markdown]
# By the naive figure the defense saves about a third of the digits. Next to nothing of it is left once the attack goes
# through it. And the clean accuracy has fallen: a digit that the generator cannot make is replaced by another one.
#
# ## A generator that teaches
#
# What if the classifier learns as well? Then both move: the generator looks for what still fools the classifier, and
# the classifier learns from it. That is adversarial training with a learned attack (`rivals harden --method gan`): an
# adversarial example costs one pass of the generator instead of several of the classifier.

# %%
taught = rivals.harden(
    "mnist5k", ball, method="gan", widths=(16, 32), until="12 epochs", out=runs / "taught", device="cpu", quiet=True
)
student = taught.classifier
_, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
for key, color in (("accuracy/held_out", "#999999"), ("accuracy/fgsm", ORANGE), ("accuracy/pgd", BLUE)):
    points = [(record["images"], record[key]) for record in taught.records() if key in record]
    axis.plot(
        *zip(*points, strict=True), "o-", color=color, label={"accuracy/held_out": "clean"}.get(key, key[9:].upper())
    )
axis.set(xlabel="images seen", ylabel="accuracy, held out", ylim=(-0.03, 1.03))
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %%
under["taught by a generator"] = {"clean": accuracy(student, x)} | {
    attack: accuracy(student, make(student)) for attack, make in attacks.items()
}
bars(under, ["#999999", ORANGE, RED, BLUE])

# %% [markdown]
# The student withstands the generator of another game, which it never met, and most of FGSM. PGD fools it nearly
# everywhere, while the classifier that was trained on PGD holds. A generator of one pass finds less than a search does,
# and the classifier becomes robust to what its opponent finds, no further.
#
# ## What to take home
#
# - Attack, defense and teacher are **players of the same game**. What differs is who learns and who is held constant.
# - A learned attack is **fast and narrow**: made for one model, useless as a measure of another's robustness.
# - A purifier is judged by attacks **through** it. The naive figure measures only what the attack did not know.
# - An opponent teaches what it **can find**: the stronger the attack in training, the more robust the classifier.
#
# All games with their commands: [One game, five players](../../docs/one-game.md).
