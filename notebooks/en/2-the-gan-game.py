# %% [markdown]
# # 2. The game of two networks, on CIFAR-10
#
# One network draws pictures, the other says which pictures are drawn and which are real. Both learn from nothing but
# each other. Here both are made of plain fully connected layers, as in the first articles on the subject.
#
# We write the game out by hand, then play it in full, watch it fail, find out why, and cure it.
#
# The pictures are CIFAR-10's. They are looked for in the folder that the environment variable `RIVALS_DATA` names, and
# downloaded (170 MB) if they are not there. Everything below takes about twelve minutes of one processor core.

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
from rivals.reports.sheet import grid

BLUE, RED = "#0072b2", "#d55e00"  # what belongs to D, and what belongs to G
runs = Path(tempfile.mkdtemp())

cifar = rivals.load_images("cifar10")
print("images", cifar.images.shape, cifar.images.dtype)
print("classes", ", ".join(cifar.classes))
grid(cifar.images[np.random.default_rng(0).permutation(len(cifar))[:24]], columns=12, scale=2)

# %% [markdown]
# ## The two players
#
# The **generator** G turns 100 random numbers into 3 × 32 × 32 = 3,072: a picture. Its last layer is a tanh, so it
# draws in the range from −1 to 1.
#
# The **discriminator** D turns 3,072 numbers into one, a *logit*: above 0 it says "real", below 0 "drawn". The sigmoid
# of the logit is the probability that D gives to "real"; we write it D(x).

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
z = torch.randn(100, 100)  # a batch of 100 latents of 100 numbers each
for what, value in (("z", z), ("G(z)", G(z)), ("D's logits", D(G(z)))):
    print(f"{what:11} {tuple(value.shape)}")
for name, net in (("G", G), ("D", D)):
    print(f"{name} has {sum(weights.numel() for weights in net.parameters()):,} weights")

# %% [markdown]
# ## The turns, written out
#
# Both losses are binary cross-entropy, and the two players take turns, batch by batch.
#
# 1. **D's turn.** It sees a batch of real pictures, which it should call 1, and a batch of drawn ones, which it should
#    call 0. The drawn ones are *held constant*: they are made without a gradient, so nothing of this turn reaches G.
# 2. **G's turn.** It draws a new batch and wants D to call it 1. The gradient runs through D back into G, but only G's
#    weights take a step.
#
# A detail that is easily forgotten: real pictures come as 0 to 255 and must be brought to the range in which G draws.

# %%
torch.manual_seed(0)
pixels = torch.from_numpy(cifar.images).flatten(1)  # (50000, 3072), uint8
ones, zeros = torch.ones(100, 1), torch.zeros(100, 1)
adam_d = torch.optim.Adam(D.parameters(), lr=2e-4)
adam_g = torch.optim.Adam(G.parameters(), lr=2e-4)
by_hand = []

for step, chosen in enumerate(torch.randperm(len(pixels))[:10_000].split(100), 1):
    real = pixels[chosen] / 127.5 - 1  # 0..255 becomes -1..1

    # D's turn: real pictures are to be called 1, drawn ones 0. The drawn ones are held constant.
    with torch.no_grad():
        drawn = G(torch.randn(100, 100))
    on_real, on_drawn = D(real), D(drawn)
    loss_d = bce(on_real, ones) + bce(on_drawn, zeros)
    adam_d.zero_grad()
    loss_d.backward()
    adam_d.step()

    # G's turn: what it draws is to be called 1. The gradient passes through D, and only G's weights move.
    loss_g = bce(D(G(torch.randn(100, 100))), ones)
    adam_g.zero_grad()
    loss_g.backward()
    adam_g.step()

    record = {"images": step * 100, "loss/discriminator": loss_d.item(), "loss/generator": loss_g.item()}
    record |= {"d_real": on_real.sigmoid().mean().item(), "d_fake": on_drawn.sigmoid().mean().item()}
    by_hand.append(record)
print(by_hand[-1])

# %% [markdown]
# ## Reading the curves
#
# After every batch we kept both losses and D's mean answer to real and to drawn pictures. The dashed lines are the
# **draw**: if D can do no better than toss a coin, it answers 1/2 everywhere, its loss is 2 log 2 = 1.386 and G's is
# log 2 = 0.693.
#
# A loss here is no mark of quality. It only tells how one player does against the other, who is learning too.


# %%
def curves(records, title, width=20):
    """Losses and mean answers, batch by batch (thin) and averaged over 20 batches (bold)."""
    _, axes = plt.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    images = np.array([record["images"] for record in records]) / 1000
    lines = (
        (axes[0], "loss/discriminator", BLUE, "D's loss", 2 * math.log(2)),
        (axes[0], "loss/generator", RED, "G's loss", math.log(2)),
        (axes[1], "d_real", BLUE, "D on real images", 0.5),
        (axes[1], "d_fake", RED, "D on drawn images", 0.5),
    )
    for axis, key, colour, label, draw in lines:
        values = np.array([record[key] for record in records])
        axis.plot(images, values, color=colour, alpha=0.25, linewidth=0.8)
        axis.plot(images[width - 1 :], np.convolve(values, np.ones(width) / width, "valid"), color=colour, label=label)
        axis.axhline(draw, color=colour if axis is axes[0] else "black", linestyle="--", linewidth=1)
    axes[0].set(title=title, ylabel="loss, nats", ylim=(0, None))
    axes[1].set(title="dashed: the draw", ylabel="mean probability of 'real'", ylim=(0, 1.25))
    axes[1].set_yticks([0, 0.25, 0.5, 0.75, 1])
    for axis in axes:
        axis.set_xlabel("real images seen, thousands")
        axis.legend(loc="upper right", ncols=2, framealpha=0.9)
        axis.grid(alpha=0.2)
    plt.show()


curves(by_hand, "100 rounds by hand")

# %% [markdown]
# ## The same game in Rivals
#
# A game is players, the turns they take, and a loss for each turn; one loop plays every game. `readings` are further
# numbers worth keeping. `play` tells each record to whoever wants to `show` it: here, a list.

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
in_rivals = []
end = rivals.play(game, rivals.Batches(cifar, 100, seed=0), until="2k images", show=in_rivals.append)
print("rounds:", end.step)
print("of D's loss, the first:", round(in_rivals[0]["loss/discriminator"], 3), " the draw:", loss.equilibrium)

# %% [markdown]
# ## The complete training
#
# The recipe `mlp-classic` is this very game: the same layers, binary cross-entropy, Adam at 2e-4 for both, batches of
# 100. `rivals.train` adds what a real run needs: it keeps every number, draws a sheet from the **same 48 latents**
# again and again, and watches itself.
#
# More images make a longer run. Give `until="20 epochs"` if you have an hour: the pictures turn into coloured clouds,
# and stay much alike.

# %%
UNTIL = "5 epochs"
classic = rivals.train("cifar10", recipe="mlp-classic", until=UNTIL, seed=0, out=runs / "classic", quiet=True)


def batches(run):
    """The records of a run's batches."""
    return [record for record in run.records() if "loss/discriminator" in record]


curves(batches(classic), "mlp-classic")

# %% [markdown]
# The two do not settle. They swing: whenever one has found an answer, the other finds the next. On the whole D leads:
# it calls real pictures real and most drawn ones drawn, and G's loss lies above its line. Now look at what G drew
# meanwhile.


# %%
def sheets(run):
    """The same 48 latents early in a run, in its middle and at its end."""
    kept = [record for record in run.records() if "sheet" in record]
    _, axes = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    for axis, share in zip(axes, (0.1, 0.5, 1), strict=True):
        record = kept[round(share * (len(kept) - 1))]
        axis.imshow(Image.open(run.folder / record["sheet"]))
        axis.set_title(f"{record['images']:,} images; diversity {100 * record['diversity']:.0f} %", fontsize=11)
        axis.axis("off")
    plt.show()


sheets(classic)
for alarm in (record for record in classic.records() if "alarm" in record):
    print(f"after {alarm['images']:,} images: {alarm['says']}")
    print(alarm["remedy"])

# %% [markdown]
# Forty-eight different latents, and for a long time one and the same picture, then a few kinds of grey clouds: **mode
# collapse**. The run noticed it by itself. It compares how far the pictures of a sheet lie from each other with how far
# real ones do.
#
# The same can be seen without any sheet: how much does each pixel vary from one drawn picture to the next?


# %%
def spread(images):
    """The standard deviation of each pixel over the images, averaged over the pixels; pixels run from 0 to 255."""
    return np.asarray(images, np.float32).std(0).mean()


print(f"real images: {spread(cifar.images[:2000]):.1f}")
print(f"drawn by mlp-classic: {spread(classic.generator.sample(2000, seed=1)):.1f}")

# %% [markdown]
# ## Why it fails: the smallest game
#
# Take away everything but the game. All real data are the number 0. G has one weight θ and draws it; D has one weight
# ψ and answers ψ · x. At the draw both are 0. This is *Dirac-GAN* (Mescheder et al. 2018), and each dot below is one
# round.
#
# Each player only ever takes a step downhill on its own loss. Yet together they circle round the draw instead of
# walking to it: whenever G has moved, D's best answer has moved as well.
#
# **R1** is a penalty of γ/2 times the squared slope of D at real data. At the draw D has to be flat, so a slope there
# is what is punished, and the circling is damped.


# %%
def dirac(gamma, steps=400, rate=0.1):
    """Where (theta, psi) are after each round. The slopes are of softplus, worked out on paper."""
    theta, psi, path = 1.0, 1.0, []
    for _ in range(steps):
        psi -= rate * (theta / (1 + math.exp(-psi * theta)) + gamma * psi)  # D: softplus(psi theta), and R1
        theta -= rate * -psi / (1 + math.exp(psi * theta))  # G: softplus(-psi theta)
        path.append((theta, psi))
    return np.array(path)


_, axes = plt.subplots(1, 2, figsize=(8, 3.8), sharex=True, sharey=True, layout="constrained")
for axis, gamma, colour in ((axes[0], 0, RED), (axes[1], 1, BLUE)):
    path = dirac(gamma)
    axis.plot(*path.T, ".-", color=colour, markersize=3, linewidth=0.6)
    axis.plot(0, 0, "k+", markersize=12)
    axis.set(title=f"γ = {gamma}: {np.hypot(*path[-1]):.2g} from the draw", xlabel="θ, what G draws", aspect="equal")
    axis.grid(alpha=0.2)
axes[0].set_ylabel("ψ, D's slope")
plt.show()

# %% [markdown]
# On pictures there is a second reason. A fully connected D looks at all 3,072 numbers at once and can find *some*
# small sign by which drawn pictures give themselves away, while its slope elsewhere is mostly noise. G is pushed hard,
# but in a direction that has little to do with the data.
#
# ## The cure
#
# The recipe `mlp` has the same two networks. This is all that it changes:

# %%
before, after = RECIPES["mlp-classic"](), RECIPES["mlp"]()
for field in dataclasses.fields(before):
    old, new = getattr(before, field.name), getattr(after, field.name)
    if old != new:
        print(f"{field.name:17} {old!s:>14}  ->  {new}")

# %% [markdown]
# - **relativistic**: D no longer says whether one picture is real, but which of two is *more* real. G must beat a real
#   picture, not a fixed line, and one convincing picture drawn over and over no longer pays.
# - **r1, r2**: the damping from above, at real and at drawn pictures; on every eighth step, eight times as strong,
#   which costs less and does nearly the same.
# - **higher rates and less momentum**: with the damping they are safe, and momentum would carry each player on in a
#   direction that the other has already answered.
# - **ema**: the sheet shows an average of G's recent weights, which circles less than the weights do.
#
# (`sheet` is only the number of pictures on a sheet; we keep 48.)

# %%
cured = rivals.train("cifar10", recipe="mlp", sheet=48, until=UNTIL, seed=0, out=runs / "cured", quiet=True)
sheets(cured)
print("alarms at the end:", ", ".join(cured.result()["alarms"]) or "none")
print(f"spread of a pixel: {spread(cured.generator.sample(2000, seed=1)):.1f}")

# %% [markdown]
# The same layers, the same number of pictures seen. They are blurred, since fully connected layers know nothing of
# what lies beside what. But they differ, they have the colours of photographs, and here and there is a horizon, or
# something before a background.
#
# Side by side:

# %%
_, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
for run, colour, label in ((classic, RED, "mlp-classic"), (cured, BLUE, "mlp")):
    kept = [record for record in run.records() if "sheet" in record]
    x = [record["images"] / 1000 for record in kept]
    axis.plot(x, [100 * record["diversity"] for record in kept], "o-", markersize=3, color=colour, label=label)
axis.axhline(100, color="black", linestyle="--", linewidth=1, label="real images")
axis.set(xlabel="real images seen, thousands", ylabel="diversity of a sheet, %", ylim=(0, None))
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# And what a drawn picture looks like between two others: walk from one latent to the next, four times.

# %%
generator = cured.generator
ends = generator.latents(8, seed=3)
walks = [
    torch.lerp(start, end, t) for start, end in zip(ends[:4], ends[4:], strict=True) for t in torch.linspace(0, 1, 12)
]
grid(generator.draw(torch.stack(walks)).numpy(), columns=12, scale=2)

# %% [markdown]
# ## Go on
#
# - Better pictures want networks that know about neighbours, and more time: `rivals train cifar10 --recipe r3`.
# - How far from the draw is this game really? Notebook 3, and `rivals score RUN --equilibrium`.
# - What every curve and alarm means: [The game](../../docs/game.md).
