# %% [markdown]
# # 3. Cross-entropy, entropy, and the draw
#
# The loss of nearly every classifier, and of the first GAN, is a cross-entropy. Here it is built from its definition,
# with care for the shapes; then entropy, the divergences, and what they say of a game: what is left for the
# discriminator to know.
#
# No data are needed but the 5,000 digits that come with the package. It takes about half a minute.

# %%
import math
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

import rivals
from rivals.metrics.entropy import binary_cross_entropy, cross_entropy, entropy, jsd, kl

BLUE, RED, GREEN = "#0072b2", "#d55e00", "#009e73"

# %% [markdown]
# ## Surprise
#
# Somebody gives an event the probability q, and it happens. How surprised are they? By −log q: not at all if q was 1,
# more the smaller it was, and for two independent events the surprises add up. With the natural logarithm the unit is
# the *nat*; with the logarithm to the base 2 it is the *bit*. One bit is one tossed coin.

# %%
for q in (1, 0.5, 0.25, 0.1, 0.001):
    print(f"q = {q:<6} surprise {math.log(1 / q):.3f} nats = {math.log2(1 / q):.3f} bits")

# %% [markdown]
# ## Entropy
#
# The **entropy** of a distribution p is its mean surprise, for one who knows it: H(p) = −Σ p log p. A fair coin has
# one bit; a coin that falls nearly always on one side has hardly any, because its tosses say hardly anything new.

# %%
heads = np.linspace(0, 1, 201)
coins = np.stack([heads, 1 - heads], 1)  # (201, 2): one distribution a row
_, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.plot(heads, entropy(coins, unit="bits"), color=BLUE)
axis.set(xlabel="probability of heads", ylabel="entropy of the coin, bits")
axis.grid(alpha=0.2)
plt.show()
print("rows in, numbers out:", coins.shape, "->", entropy(coins).shape)

# %% [markdown]
# ## Cross-entropy
#
# Now p is the truth and q what somebody believes. The **cross-entropy** is the mean surprise of the believer: H(p, q)
# = −Σ p log q.
#
# Written for a batch, the shapes are half of the matter. There are n questions, "which of C classes?":
#
# - q has the shape (n, C): a row for each question, C probabilities in it that sum to 1.
# - p may be (n, C), one-hot or soft, or (n,): the number of the right class.
# - The sum over the last axis leaves (n,), one surprise a question. Their mean is the loss.

# %%
q = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]])  # (4, 3): four answers
labels = np.array([0, 1, 2, 1])  # (4,): the last answer is badly wrong
one_hot = np.eye(3)[labels]  # (4, 3)

surprise = -(one_hot * np.log(q)).sum(-1)  # the definition; (4,)
print("a surprise for each question", surprise.round(3), surprise.shape)
print("their mean", surprise.mean())

assert np.allclose(surprise, -np.log(q[np.arange(4), labels]))  # only the right class's probability counts
assert np.isclose(surprise.mean(), cross_entropy(labels, q))
assert np.isclose(surprise.mean(), cross_entropy(one_hot, q))

# %% [markdown]
# ## "Is it real?" is another shape
#
# A discriminator asks n questions that have two answers each. One number is enough for both: q, of shape (n,), is the
# probability of "yes", and "no" has the rest. This is **binary cross-entropy**.
#
# The same four numbers (n,) can be mistaken for other things. The classic trap: one side is (n, 1), the other (n,).
# Nothing fails; the two are spread out to an (n, n) table in which every answer is compared with every label.

# %%
real = np.array([1, 0, 0, 1])
says = np.array([0.9, 0.1, 0.2, 0.8])  # right every time


def by_hand(p, q):
    """Binary cross-entropy from its definition, without a check of shapes."""
    return -(p * np.log(q) + (1 - p) * np.log(1 - q))


print("right: ", by_hand(real, says).shape, "mean", by_hand(real, says).mean())
print("trap:  ", by_hand(real[:, None], says).shape, "mean", by_hand(real[:, None], says).mean())
try:
    binary_cross_entropy(real[:, None], says)
except rivals.UserError as error:
    print("rivals:", error)

# %% [markdown]
# ## Logits, and why no one takes the logarithm of a sigmoid
#
# A network gives a *logit* s, and the probability is sigmoid(s). When D is very sure, the probability is rounded to 1
# or 0, and the logarithm of 1 − 1 is infinite. The way out is algebra: −log(1 − sigmoid(s)) = log(1 + eˢ) =
# softplus(s), and −log sigmoid(s) = softplus(−s). The same numbers, without the overflow.

# %%
s = torch.tensor([0.0, 5.0, 20.0, 200.0])
print("logit s              ", s.tolist())
print("-log(1 - sigmoid(s)) ", (-torch.log(1 - torch.sigmoid(s))).tolist())
print("softplus(s)          ", softplus(s).tolist())

# %% [markdown]
# ## KL: what a wrong belief costs
#
# Even who knows the truth is surprised, by H(p). What a wrong belief adds is the **Kullback-Leibler divergence**:
# KL(p‖q) = H(p, q) − H(p). It is 0 only where q = p. It is not symmetric, and it is infinite where q rules out what p
# allows. So to minimise a cross-entropy is to minimise a KL: H(p) is not in the learner's hand.

# %%
p, q = np.array([0.5, 0.4, 0.1]), np.array([0.2, 0.5, 0.3])
print("H(p, q) - H(p) =", cross_entropy(p[None], q[None]) - entropy(p))
print("KL(p || q)     =", kl(p, q))
print("KL(q || p)     =", kl(q, p))
print("impossible things cost", kl([0.5, 0.5], [1.0, 0.0]))

# %% [markdown]
# ## JSD: a divergence that always exists
#
# The **Jensen-Shannon divergence** compares both with their mean m = (p + q) / 2: half of KL(p‖m) plus half of
# KL(q‖m). It is symmetric, and it ends at log 2, one bit, where the two have nothing in common. Here are two bell
# curves that move apart.

# %%
x = np.linspace(-8, 12, 2001)


def bell(mean):
    """A normal distribution of deviation 1 in narrow bins: (2001,), summing to 1."""
    heights = np.exp(-0.5 * (x - mean) ** 2)
    return heights / heights.sum()


shifts = np.linspace(0, 5, 51)
_, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
axis.plot(shifts, [kl(bell(0), bell(shift)) for shift in shifts], color=RED, label="KL")
axis.plot(shifts, [jsd(bell(0), bell(shift)) for shift in shifts], color=BLUE, label="JSD")
axis.axhline(math.log(2), color=BLUE, linestyle="--", linewidth=1, label="log 2")
axis.set(xlabel="distance of the means, deviations", ylabel="divergence, nats", ylim=(0, 3))
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# ## The best discriminator
#
# Let p be the real images' distribution and g the drawn ones'. For a given g, the D that loses least answers D*(x) =
# p(x) / (p(x) + g(x)) everywhere. Its loss is then exactly **2 log 2 − 2 JSD(p, g)** (Goodfellow et al. 2014).
#
# So D measures a distance. Where g = p, it answers 1/2 everywhere and loses 2 log 2: this is **the draw**.

# %%
_, axes = plt.subplots(1, 3, figsize=(11, 2.8), sharey=True, layout="constrained")
for axis, shift in zip(axes, (3, 1, 0), strict=True):
    p, g = bell(0), bell(shift)
    best = p / (p + g)
    loss = -(p * np.log(best)).sum() - (g * np.log(1 - best)).sum()
    assert np.isclose(loss, 2 * math.log(2) - 2 * jsd(p, g))
    axis.fill_between(x, p / p.max(), color=BLUE, alpha=0.35, label="p, real")
    axis.fill_between(x, g / p.max(), color=RED, alpha=0.35, label="g, drawn")
    axis.plot(x, best, color="black", label="best D")
    axis.set(title=f"D's loss {loss:.3f}, JSD {jsd(p, g):.3f} nats", xlabel="x", xlim=(-4, 7))
axes[0].set_ylabel("D's answer (and densities, scaled)")
axes[0].legend(loc="upper right", fontsize=8)
plt.show()

# %% [markdown]
# ## What is left to know
#
# Toss a coin. Heads: show D a real image. Tails: a drawn one. D is to say how the coin fell. Before it looks, one bit
# is unknown. Half of D's loss is what is **still unknown after it has looked**; the JSD is what the look has told it.
#
# At the draw the look tells nothing, and the whole bit is left. When D wins, nothing is left, and G learns little from
# someone who is never in doubt.

# %%
for shift in (0, 1, 2, 3, 5):
    told = jsd(bell(0), bell(shift), unit="bits")
    print(f"distance {shift}: the look tells {told:.3f} bits, {1 - told:.3f} are left")

# %% [markdown]
# ## A discriminator that has to learn
#
# A real D is not the best one. But on images that it has not learnt from, *any* D loses at least 2 log 2 − 2 JSD, in
# the mean. Turned round: **JSD ≥ log 2 − loss / 2**, whoever D is. A D that tells the two apart proves a distance. One
# that does not proves nothing: it may be weak.
#
# Here a small network learns to tell the bells at distance 1, and is judged by fresh points.

# %%
torch.manual_seed(0)
D = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
adam = torch.optim.Adam(D.parameters(), lr=1e-3)
bounds = []
for _ in range(300):
    with torch.no_grad():  # fresh points, before D learns from the next ones
        lost = softplus(-D(torch.randn(4000, 1))).mean() + softplus(D(torch.randn(4000, 1) + 1)).mean()
        bounds.append(math.log(2) - lost.item() / 2)
    loss = softplus(-D(torch.randn(256, 1))).mean() + softplus(D(torch.randn(256, 1) + 1)).mean()
    adam.zero_grad()
    loss.backward()
    adam.step()

_, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.plot(bounds, color=BLUE, linewidth=1, label="what D proves")
axis.axhline(jsd(bell(0), bell(1)), color="black", linestyle="--", linewidth=1, label="the truth")
axis.set(xlabel="steps of D", ylabel="JSD of at least, nats", ylim=(0, 0.15))
axis.legend(loc="lower right")
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# The line climbs towards the truth and stays there, but for the noise of 4,000 points.
#
# ## A real game
#
# The plain game of notebook 2, on 4,500 digits: fully connected layers, binary cross-entropy. Half of D's loss, in
# bits, is what it does not know of a batch.

# %%
runs = Path(tempfile.mkdtemp())
run = rivals.train("mnist5k", recipe="mlp-classic", until="6k images", seed=0, out=runs / "digits", quiet=True)
records = [record for record in run.records() if "loss/discriminator" in record]
images = [record["images"] for record in records]
left = [record["loss/discriminator"] / 2 / math.log(2) for record in records]

_, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.plot(images, left, color=BLUE, linewidth=1)
axis.axhline(1, color="black", linestyle="--", linewidth=1, label="the draw: one bit, a tossed coin")
axis.set(xlabel="real images seen", ylabel="what D does not know, bits", ylim=(0, None))
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# This D has learnt from the very images it is asked about, and G changes under its feet. So the curve alone decides
# nothing. `rivals.equilibrium` (on the command line `rivals score RUN --equilibrium`) asks on 500 test digits that
# neither player has met:
#
# - D as it plays, and D *read out*, its score turned into a fair probability;
# - a **fresh** D, trained for a stated budget against the finished G. If it tells the images apart, the balance of the
#   game was none;
# - the **duality gap**: what either player would gain if it alone learnt on.

# %%
found = rivals.equilibrium(run.folder, steps=40, n=500, quiet=True)
for value in found.values:
    low_high = "" if value["low"] is None else f"({value['low']:.3f} to {value['high']:.3f})"
    draw = "" if value["draw"] is None else f"draw {value['draw']:.3f}"
    print(
        f"{value['name']:25} {value['value']:7.3f} {low_high:18} {draw:12} {value['unit']:24} {value['discriminator']}"
    )

# %%
proofs = [value for value in found.values if value["name"] == "JSD bound"]
_, axis = plt.subplots(figsize=(7, 2.4), layout="constrained")
for place, value in enumerate(proofs):
    reach = [[value["value"] - value["low"]], [value["high"] - value["value"]]]
    axis.errorbar(value["value"], place, xerr=reach, fmt="o", color=BLUE, capsize=4)
axis.axvline(0, color="black", linestyle="--", linewidth=1)
axis.axvline(math.log(2), color=GREEN, linestyle="--", linewidth=1)
axis.set_yticks(range(len(proofs)), [value["discriminator"].replace(", read", ",\nread") for value in proofs])
axis.set(xlabel="the JSD of real and drawn digits is at least so many nats (green: log 2, nothing in common)")
axis.set_ylim(-0.5, len(proofs) - 0.5)
axis.grid(alpha=0.2, axis="x")
plt.show()

# %% [markdown]
# The curve ends near the draw, and as it plays, D is right hardly more often than a tossed coin. Yet this is no draw.
# Read out, the same D tells most digits rightly: only its level was wrong for a moment. And a fresh D needs just a few
# steps to find that drawn and real digits have next to nothing in common.
#
# So a balance between two who are both still learning proves nothing. How far it is to the draw has to be measured.
#
# More: [Equilibrium](../../docs/equilibrium.md) explains every value, its interval and its budget.
