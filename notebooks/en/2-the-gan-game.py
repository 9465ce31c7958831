# %% [markdown]
# # 2. The GAN game, on CIFAR-10
#
# One network generates images, another classifies images as real or generated. Each learns only from the other: a
# two-player game. Here both networks are fully connected, as in the first articles on GANs.
#
# We write the training loop by hand, run the full training, see it fail by mode collapse, find out why, and fix it.
#
# The real images are those of CIFAR-10, taken from the folder that the environment variable `RIVALS_DATA` names, or
# downloaded (170 MB) if they are not there. The notebook takes about a quarter of an hour on one core.

# %%
import dataclasses
import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

import rivals
from rivals.recipes import RECIPES
from rivals.reports.image_grid import make_grid

BLUE, RED = "#0072b2", "#d55e00"  # the discriminator D and the generator G
runs = Path(tempfile.mkdtemp())

cifar = rivals.load_images("cifar10")
print("images", cifar.images.shape, cifar.images.dtype)
print("classes", ", ".join(cifar.classes))
make_grid(cifar.images[np.random.default_rng(0).permutation(len(cifar))[:24]], columns=12, scale=2)

# %% [markdown]
# ## The two players
#
# The **generator** G maps a *latent vector* z, 100 random numbers, to an image of 3 × 32 × 32 = 3,072 numbers. Its last
# layer is a tanh, so pixels are in [−1, 1].
#
# The **discriminator** D maps an image to one number, a *logit*: positive for "real", negative for "generated". The
# sigmoid of the logit is D's probability of "real", written D(x).

# %%
torch.manual_seed(0)
G = nn.Sequential(
    *(nn.Linear(100, 256), nn.LeakyReLU(0.2)),
    *(nn.Linear(256, 512), nn.LeakyReLU(0.2)),
    *(nn.Linear(512, 1024), nn.LeakyReLU(0.2)),
    *(nn.Linear(1024, 3072), nn.Tanh()),
)
D = nn.Sequential(
    *(nn.Linear(3072, 1024), nn.LeakyReLU(0.2), nn.Dropout(0.3)),
    *(nn.Linear(1024, 512), nn.LeakyReLU(0.2), nn.Dropout(0.3)),
    *(nn.Linear(512, 256), nn.LeakyReLU(0.2), nn.Dropout(0.3)),
    nn.Linear(256, 1),
)
z = torch.randn(100, 100)  # a batch of 100 latent vectors
for name, value in (("z", z), ("G(z)", G(z)), ("D's logits", D(G(z)))):
    print(f"{name:11} {tuple(value.shape)}")
for name, net in (("G", G), ("D", D)):
    print(f"{name} has {sum(parameter.numel() for parameter in net.parameters()):,} parameters")

# %% [markdown]
# ## The training loop by hand
#
# Both losses are binary cross-entropy, and the players alternate on each batch.
#
# 1. **The discriminator's step.** The labels are 1 for a batch of real images and 0 for a batch of generated ones. The
#    generated images are constants here: they are made without a gradient, so nothing of this step reaches G.
# 2. **The generator's step.** G generates a new batch, and its loss is low if D classifies it as real (label 1). The
#    gradient flows through D into G, but only G's parameters are updated.
#
# One detail is easily forgotten: the pixels of real images are 0 to 255 and must be scaled to G's range.

# %%
torch.manual_seed(0)
pixels = torch.from_numpy(cifar.images).flatten(1)  # (50000, 3072), uint8
ones, zeros = torch.ones(100, 1), torch.zeros(100, 1)
adam_d = torch.optim.Adam(D.parameters(), lr=2e-4)
adam_g = torch.optim.Adam(G.parameters(), lr=2e-4)
by_hand = []

for step, indices in enumerate(torch.randperm(len(pixels))[:10_000].split(100), 1):
    real = pixels[indices] / 127.5 - 1  # from [0, 255] to [-1, 1]

    # The discriminator's step: label 1 for real images, 0 for generated ones, which are constants here.
    with torch.no_grad():
        fake = G(torch.randn(100, 100))
    logits_real, logits_fake = D(real), D(fake)
    loss_d = bce(logits_real, ones) + bce(logits_fake, zeros)
    adam_d.zero_grad()
    loss_d.backward()
    adam_d.step()

    # The generator's step: label 1 for generated images. The gradient flows through D; only G is updated.
    loss_g = bce(D(G(torch.randn(100, 100))), ones)
    adam_g.zero_grad()
    loss_g.backward()
    adam_g.step()

    record = {"images": step * 100, "loss/discriminator": loss_d.item(), "loss/generator": loss_g.item()}
    record |= {"d_real": logits_real.sigmoid().mean().item(), "d_fake": logits_fake.sigmoid().mean().item()}
    by_hand.append(record)
print(by_hand[-1])

# %% [markdown]
# ## Reading the curves
#
# After every batch we recorded both losses and D's mean output on real and on generated images. The dashed lines are
# the **equilibrium**: where D can only guess, it outputs 1/2 everywhere, its loss is 2 log 2 = 1.386 and G's is
# log 2 = 0.693.
#
# A loss is not a measure of quality here. It only shows how one player does against the other, which is learning too.


# %%
def plot_curves(records, title, width=20):
    """Losses and D's mean outputs: each batch (thin), and the moving average over ``width`` batches (bold)."""
    _, axes = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    images = np.array([record["images"] for record in records]) / 1000
    lines = (
        (axes[0], "loss/discriminator", BLUE, "D's loss", 2 * math.log(2)),
        (axes[0], "loss/generator", RED, "G's loss", math.log(2)),
        (axes[1], "d_real", BLUE, "D on real images", 0.5),
        (axes[1], "d_fake", RED, "D on generated images", 0.5),
    )
    for axis, key, color, label, equilibrium in lines:
        values = np.array([record[key] for record in records])
        axis.plot(images, values, color=color, alpha=0.25, linewidth=0.8)
        axis.plot(images[width - 1 :], np.convolve(values, np.ones(width) / width, "valid"), color=color, label=label)
        axis.axhline(equilibrium, color=color if axis is axes[0] else "black", linestyle="--", linewidth=1)
    axes[0].set(title=title, ylabel="loss, nats", ylim=(0, None))
    axes[1].set(title="dashed: the equilibrium", ylabel="mean probability of 'real'", ylim=(0, 1.25))
    axes[1].set_yticks([0, 0.25, 0.5, 0.75, 1])
    for axis in axes:
        axis.set_xlabel("real images seen, thousands")
        axis.legend(loc="upper right", ncols=2, framealpha=0.9)
        axis.grid(alpha=0.2)
    plt.show()


plot_curves(by_hand, "100 steps by hand")

# %% [markdown]
# ## The same game in Rivals
#
# A `Game` consists of players and their turns, each with a loss; one loop, `play`, trains every game. `readings` are
# other values to record. A callback receives each record: here, it appends them to a list.

# %%
loss = rivals.nonsaturating()
game = rivals.Game(
    players={
        "generator": rivals.Player(rivals.build_generator("mlp", size=32, channels=3), rivals.adam(2e-4)),
        "discriminator": rivals.Player(rivals.build_discriminator("mlp", size=32, channels=3), rivals.adam(2e-4)),
    },
    turns=[
        rivals.Turn("discriminator", loss.discriminator, readings=loss.readings),
        rivals.Turn("generator", loss.generator),
    ],
)
records = []
end = rivals.play(game, rivals.Batches(cifar, 100, seed=0), until="2k images", callbacks=[rivals.OnLog(records.append)])
print("steps:", end.step)
print("D's loss at the first step:", round(records[0]["loss/discriminator"], 3), " equilibrium:", loss.equilibrium)

# %% [markdown]
# ## The full training
#
# The recipe `mlp-classic` is this game: the same layers, binary cross-entropy, Adam with learning rate 2e-4 for both,
# batch size 100. `rivals.train` adds what a real run needs: it records every value, saves sample grids of the **same 48
# latent vectors**, and monitors the training.
#
# A longer `UNTIL`, such as `"20 epochs"`, takes proportionally longer.

# %%
UNTIL = "5 epochs"
classic = rivals.train("cifar10", recipe="mlp-classic", until=UNTIL, seed=0, out=runs / "classic", quiet=True)
plot_curves([record for record in classic.records() if "loss/discriminator" in record], "mlp-classic")

# %% [markdown]
# The game does not settle: it oscillates. On the whole D leads: it classifies most images correctly, real and
# generated, and G's loss is above its equilibrium. What did G generate meanwhile?


# %%
def show_sample_grids(run):
    """The samples of the same 48 latent vectors early in a run, halfway, and at its end."""
    grids = [record for record in run.records() if "sample_grid" in record]
    _, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    for axis, fraction in zip(axes, (0.1, 0.5, 1), strict=True):
        record = grids[round(fraction * (len(grids) - 1))]
        axis.imshow(Image.open(run.folder / record["sample_grid"]))
        axis.set_title(f"{record['images']:,} images; diversity {100 * record['diversity']:.0f} %", fontsize=11)
        axis.axis("off")
    plt.show()


show_sample_grids(classic)
for alarm in (record for record in classic.records() if "alarm" in record):
    print(f"after {alarm['images']:,} images: {alarm['message']}")
    print(alarm["remedy"])

# %% [markdown]
# Forty-eight different latent vectors, but for the first 100,000 images nearly one and the same sample, then a few
# kinds of clouds: **mode collapse**. The run noticed it by itself, from the diversity. *Diversity* is the distance from
# each image of a sample grid to the one most like it, on average, relative to that of real images.
#
# ## Why it fails: the smallest game
#
# Reduce the game to its minimum. All real data are the number 0. G has one parameter θ and outputs θ; D has one
# parameter ψ and outputs the logit ψ · x. At the equilibrium both are 0. This is *Dirac-GAN* (Mescheder et al. 2018);
# each dot below is one step of training.
#
# Each player only descends the gradient of its own loss. Yet the two circle around the equilibrium and approach it ever
# more slowly: whenever G moves, D's best response changes, and the other way round.
#
# **R1** is a gradient penalty: γ/2 times the squared norm of D's gradient on real data, here γ/2 · ψ². At the
# equilibrium D has to be flat, so the penalty pulls it there and damps the rotation.


# %%
def dirac(gamma, steps=400, lr=0.1):
    """(theta, psi) after each step. The gradients of softplus are written out."""
    theta, psi, path = 1.0, 1.0, []
    for _ in range(steps):
        psi -= lr * (theta / (1 + math.exp(-psi * theta)) + gamma * psi)  # D: softplus(psi theta) + R1
        theta -= lr * -psi / (1 + math.exp(psi * theta))  # G: softplus(-psi theta)
        path.append((theta, psi))
    return np.array(path)


_, axes = plt.subplots(1, 2, figsize=(8, 3.8), sharex=True, sharey=True, layout="constrained")
for axis, gamma, color in ((axes[0], 0, RED), (axes[1], 1, BLUE)):
    path = dirac(gamma)
    axis.plot(*path.T, ".-", color=color, markersize=3, linewidth=0.6)
    axis.plot(0, 0, "k+", markersize=12)
    axis.set(title=f"γ = {gamma}: final distance {np.hypot(*path[-1]):.2g}", xlabel="θ, G's output", aspect="equal")
    axis.grid(alpha=0.2)
axes[0].set_ylabel("ψ, D's gradient")
plt.show()
for steps in (400, 1000, 100_000):
    print(f"γ = 0, {steps:,} steps: distance to the equilibrium {np.hypot(*dirac(0, steps)[-1]):.2g}")

# %% [markdown]
# On images there is a second reason. A fully connected D sees all 3,072 values at once, and nothing limits its
# gradients: it can find *some* small difference that separates generated from real images. G then receives large
# gradients, but their direction owes more to D's noise than to the data.
#
# ## The fix
#
# The recipe `mlp` trains the same two networks. These are all the settings that it changes:

# %%
before, after = RECIPES["mlp-classic"](), RECIPES["mlp"]()
for field in dataclasses.fields(before):
    old, new = getattr(before, field.name), getattr(after, field.name)
    if old != new:
        print(f"{field.name:17} {old!s:>14}  ->  {new}")

# %% [markdown]
# - **relativistic loss**: D no longer classifies single images, it compares a real image with a generated one. G must
#   beat a real image, not a fixed threshold, and one convincing image, repeated, no longer suffices.
# - **R1, R2**: gradient penalties on real and on generated images, the damping from above. They are computed on every
#   eighth step, eight times as strong: cheaper, with nearly the same effect.
# - **higher learning rates, less momentum**: with the damping, higher rates are stable. Momentum would carry each
#   player on in a direction to which the other has already reacted.
# - **EMA**: samples come from an exponential moving average of G's weights, which oscillates less than the weights.
#
# (`sample_grid` is only the number of images in a sample grid; we keep 48.)

# %%
stabilized = rivals.train(
    "cifar10", recipe="mlp", sample_grid=48, until=UNTIL, seed=0, out=runs / "stabilized", quiet=True
)
show_sample_grids(stabilized)
print("alarms at the end:", ", ".join(alarm["alarm"] for alarm in stabilized.result()["alarms"]) or "none")

# %% [markdown]
# The same layers, the same number of images. The samples are blurred, since fully connected layers do not know which
# pixels are neighbors. But they differ from each other and have the colors of photographs, and in some one can see a
# horizon, or an object in front of a background.
#
# The diversity of both runs:

# %%
_, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
for run, color, label in ((classic, RED, "mlp-classic"), (stabilized, BLUE, "mlp")):
    grids = [record for record in run.records() if "sample_grid" in record]
    images = [record["images"] / 1000 for record in grids]
    axis.plot(images, [100 * record["diversity"] for record in grids], "o-", markersize=3, color=color, label=label)
axis.axhline(100, color="black", linestyle="--", linewidth=1, label="real images")
axis.set(xlabel="real images seen, thousands", ylabel="diversity of the sample grid, %", ylim=(0, None))
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# Finally, interpolation in latent space: each row goes from one latent vector to another in equal steps.

# %%
generator = stabilized.generator
z = generator.latents(8, seed=3)
interpolated = [
    torch.lerp(start, end, t) for start, end in zip(z[:4], z[4:], strict=True) for t in torch.linspace(0, 1, 12)
]
make_grid(generator.generate(torch.stack(interpolated)).numpy(), columns=12, scale=2)

# %% [markdown]
# ## Next
#
# - Better images need convolutions and more time: `rivals train cifar10 --recipe r3`.
# - How far is this game from its equilibrium? Notebook 3, and `rivals score RUN --equilibrium`.
# - What every curve and alarm means: [GAN training](../../docs/game.md).
