# %% [markdown]
# # 3. Cross-entropy, entropy, and the equilibrium
#
# The loss of nearly every classifier, and of the first GAN, is a cross-entropy. This notebook builds it from its
# definition, with attention to shapes, then turns to entropy and divergences, and to what they say about a GAN: how
# much the discriminator can still tell.
#
# The only data are the 5,000 digits that ship with the package. It takes about half a minute.

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
# An event to which we gave the probability q happens. Its *surprise* (information content) is −log q: zero if q was 1,
# larger the smaller q was, and additive for independent events. With the natural logarithm the unit is the *nat*; with
# base 2 it is the *bit*. One bit is one toss of a fair coin.

# %%
for q in (1, 0.5, 0.25, 0.1, 0.001):
    print(f"q = {q:<6} surprise {math.log(1 / q):.3f} nats = {math.log2(1 / q):.3f} bits")

# %% [markdown]
# ## Entropy
#
# The **entropy** of a distribution p is the expected surprise under p: H(p) = −Σ p log p. A fair coin has one bit; a
# coin that nearly always lands on the same side has almost none, because its tosses carry almost no information.

# %%
heads = np.linspace(0, 1, 201)
coins = np.stack([heads, 1 - heads], 1)  # (201, 2): one distribution per row
_, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.plot(heads, entropy(coins, unit="bits"), color=BLUE)
axis.set(xlabel="probability of heads", ylabel="entropy of the coin, bits")
axis.grid(alpha=0.2)
plt.show()
print("one entropy per row:", coins.shape, "->", entropy(coins).shape)

# %% [markdown]
# ## Cross-entropy
#
# Now p is the true distribution and q the predicted one. The **cross-entropy** is the expected surprise of the
# prediction: H(p, q) = −Σ p log q.
#
# For a batch of n samples and C classes, mind the shapes:
#
# - q has shape (n, C): one row per sample, with C probabilities that sum to 1.
# - p has shape (n, C), one-hot or soft, or (n,): the index of the correct class.
# - The sum over the last axis gives (n,), one surprise per sample. Their mean is the loss.

# %%
q = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]])  # (4, 3): four predictions
labels = np.array([0, 1, 2, 1])  # (4,): the last prediction is badly wrong
one_hot = np.eye(3)[labels]  # (4, 3)

surprise = -(one_hot * np.log(q)).sum(-1)  # the definition; (4,)
print("surprise per sample", surprise.round(3), surprise.shape)
print("mean", surprise.mean())

assert np.allclose(surprise, -np.log(q[np.arange(4), labels]))  # only the probability of the correct class counts
assert np.isclose(surprise.mean(), cross_entropy(labels, q))
assert np.isclose(surprise.mean(), cross_entropy(one_hot, q))

# %% [markdown]
# ## Binary cross-entropy has another shape
#
# A discriminator solves n binary problems, "real or not". One number per sample is enough: q, of shape (n,), is the
# probability of "real", and 1 − q that of "fake". This is **binary cross-entropy**.
#
# The classic trap: one argument has shape (n, 1), the other (n,). No error is raised; the two broadcast to (n, n), and
# every prediction is compared with every label.

# %%
real = np.array([1, 0, 0, 1])
predicted = np.array([0.9, 0.1, 0.2, 0.8])  # correct every time


def by_hand(p, q):
    """Binary cross-entropy per sample, from its definition, without a shape check."""
    return -(p * np.log(q) + (1 - p) * np.log(1 - q))


print("correct:", by_hand(real, predicted).shape, "mean", by_hand(real, predicted).mean())
print("trap:   ", by_hand(real[:, None], predicted).shape, "mean", by_hand(real[:, None], predicted).mean())
try:
    binary_cross_entropy(real[:, None], predicted)
except rivals.UserError as error:
    print("rivals:", error)

# %% [markdown]
# ## Logits, and why not to take the log of a sigmoid
#
# A network outputs a *logit* s; the probability is sigmoid(s). For large |s| the probability rounds to 1 or 0, and
# log(1 − 1) is −∞. The fix is algebra: −log(1 − sigmoid(s)) = log(1 + eˢ) = softplus(s), and −log sigmoid(s) =
# softplus(−s). Same values, numerically stable.

# %%
s = torch.tensor([0.0, 5.0, 20.0, 200.0])
print("logit s              ", s.tolist())
print("-log(1 - sigmoid(s)) ", (-torch.log(1 - torch.sigmoid(s))).tolist())
print("softplus(s)          ", softplus(s).tolist())

# %% [markdown]
# ## KL: the cost of a wrong distribution
#
# Even the true distribution has the expected surprise H(p). What a wrong one adds is the **Kullback-Leibler
# divergence**: KL(p‖q) = H(p, q) − H(p). It is 0 only if q = p. It is not symmetric, and it is infinite where q is 0
# but p is not. So minimizing a cross-entropy over q minimizes the KL: H(p) does not depend on q.

# %%
p, q = np.array([0.5, 0.4, 0.1]), np.array([0.2, 0.5, 0.3])
print("H(p, q) - H(p) =", cross_entropy(p[None], q[None]) - entropy(p))
print("KL(p || q)     =", kl(p, q))
print("KL(q || p)     =", kl(q, p))
print("KL where q is 0 and p is not:", kl([0.5, 0.5], [1.0, 0.0]))

# %% [markdown]
# ## JSD: a divergence that is always finite
#
# The **Jensen-Shannon divergence** compares both with their mixture m = (p + q) / 2: half of KL(p‖m) plus half of
# KL(q‖m). It is symmetric and bounded by log 2, one bit, reached when the two do not overlap. Here are two Gaussians
# that move apart.

# %%
x = np.linspace(-8, 12, 2001)


def gaussian(mean):
    """A Gaussian with standard deviation 1, discretized: (2001,), summing to 1."""
    density = np.exp(-0.5 * (x - mean) ** 2)
    return density / density.sum()


shifts = np.linspace(0, 5, 51)
_, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
axis.plot(shifts, [kl(gaussian(0), gaussian(shift)) for shift in shifts], color=RED, label="KL")
axis.plot(shifts, [jsd(gaussian(0), gaussian(shift)) for shift in shifts], color=BLUE, label="JSD")
axis.axhline(math.log(2), color=BLUE, linestyle="--", linewidth=1, label="log 2")
axis.set(xlabel="distance of the means, standard deviations", ylabel="divergence, nats", ylim=(0, 3))
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# ## The optimal discriminator
#
# Let p be the distribution of real images and g that of generated ones. For a fixed g, the D with the smallest loss is
# D*(x) = p(x) / (p(x) + g(x)). Its loss is exactly **2 log 2 − 2 JSD(p, g)** (Goodfellow et al. 2014).
#
# So D measures a divergence. Where g = p, D* is 1/2 everywhere and its loss is 2 log 2: this is the **equilibrium**.

# %%
_, axes = plt.subplots(1, 3, figsize=(11, 2.8), sharey=True, layout="constrained")
for axis, shift in zip(axes, (3, 1, 0), strict=True):
    p, g = gaussian(0), gaussian(shift)
    optimal = p / (p + g)
    loss = -(p * np.log(optimal)).sum() - (g * np.log(1 - optimal)).sum()
    assert np.isclose(loss, 2 * math.log(2) - 2 * jsd(p, g))
    axis.fill_between(x, p / p.max(), color=BLUE, alpha=0.35, label="p, real")
    axis.fill_between(x, g / p.max(), color=RED, alpha=0.35, label="g, generated")
    axis.plot(x, optimal, color="black", label="D*, optimal")
    axis.set(title=f"D's loss {loss:.3f}, JSD {jsd(p, g):.3f} nats", xlabel="x", xlim=(-4, 7))
axes[0].set_ylabel("D*(x) (and densities, scaled)")
axes[0].legend(loc="upper right", fontsize=8)
plt.show()

# %% [markdown]
# ## How much is left to know
#
# Toss a coin: on heads show D a real image, on tails a generated one, and let D predict the toss. Before it sees the
# image, one bit is unknown. Half of the optimal D's loss is the entropy that **remains** after it has seen the image
# (the conditional entropy); the JSD is the information that the image gave (the mutual information).
#
# At the equilibrium the image gives no information, and the whole bit remains. If D wins, nothing remains, and G learns
# little from a D that is never in doubt.

# %%
for shift in (0, 1, 2, 3, 5):
    information = jsd(gaussian(0), gaussian(shift), unit="bits")
    print(f"distance {shift}: the image gives {information:.3f} bits, {1 - information:.3f} remain")

# %% [markdown]
# ## A discriminator that has to learn
#
# A trained D is not optimal. But on held-out images *any* D has an expected loss of at least 2 log 2 − 2 JSD. In other
# words, **JSD ≥ log 2 − loss / 2** for any D. A D that separates the two proves a divergence. A D that does not proves
# nothing: it may just be weak.
#
# Here a small network learns to separate two Gaussians at distance 1 and is evaluated on fresh points.

# %%
torch.manual_seed(0)
D = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
adam = torch.optim.Adam(D.parameters(), lr=1e-3)
bounds = []
for _ in range(300):
    with torch.no_grad():  # held-out points, evaluated before the step
        held_out = softplus(-D(torch.randn(4000, 1))).mean() + softplus(D(torch.randn(4000, 1) + 1)).mean()
        bounds.append(math.log(2) - held_out.item() / 2)
    loss = softplus(-D(torch.randn(256, 1))).mean() + softplus(D(torch.randn(256, 1) + 1)).mean()
    adam.zero_grad()
    loss.backward()
    adam.step()

_, axis = plt.subplots(figsize=(6, 3), layout="constrained")
axis.plot(bounds, color=BLUE, linewidth=1, label="lower bound from D")
axis.axhline(jsd(gaussian(0), gaussian(1)), color="black", linestyle="--", linewidth=1, label="true JSD")
axis.set(xlabel="steps of D", ylabel="JSD, nats", ylim=(0, 0.15))
axis.legend(loc="lower right")
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# The bound rises toward the true value and stays there, up to the noise of 4,000 points.
#
# ## A real GAN
#
# The plain GAN of notebook 2, on 4,500 digits: fully connected layers, binary cross-entropy. Half of D's loss, in bits,
# is an estimate of the entropy that remains.

# %%
runs = Path(tempfile.mkdtemp())
run = rivals.train("mnist5k", recipe="mlp-classic", until="6k images", seed=0, out=runs / "digits", quiet=True)
records = [record for record in run.records() if "loss/discriminator" in record]
images = [record["images"] for record in records]
remaining = [record["loss/discriminator"] / 2 / math.log(2) for record in records]

_, axis = plt.subplots(figsize=(7, 3), layout="constrained")
axis.plot(images, remaining, color=BLUE, linewidth=1)
axis.axhline(1, color="black", linestyle="--", linewidth=1, label="equilibrium: one bit")
axis.set(xlabel="real images seen", ylabel="half of D's loss, bits", ylim=(0, None))
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# This D was trained on the very images it is evaluated on, and G keeps changing, so the curve alone proves nothing.
# `rivals.equilibrium` (`rivals score RUN --equilibrium` on the command line) measures on 500 test digits that neither
# network has seen:
#
# - D as trained, and D *calibrated*: its score mapped to a probability by logistic regression;
# - a **fresh** D, trained for a fixed budget against the finished G. If it separates the images, there was no
#   equilibrium;
# - the **duality gap**: how much either player could gain if it alone were trained further.

# %%
result = rivals.equilibrium(run.folder, steps=40, n=500, quiet=True)
for value in result.values:
    interval = "" if value["low"] is None else f"({value['low']:.3f} to {value['high']:.3f})"
    target = "" if value["equilibrium"] is None else f"equilibrium {value['equilibrium']:.3f}"
    print(f"{value['name']:25} {value['value']:7.3f} {interval:18} {target:17}", end=" ")
    print(f"{value['unit']:24} {value['discriminator']}".rstrip())

# %%
jsd_bounds = [value for value in result.values if value["name"] == "JSD bound"]
_, axis = plt.subplots(figsize=(7, 2.4), layout="constrained")
for row, value in enumerate(jsd_bounds):
    error = [[value["value"] - value["low"]], [value["high"] - value["value"]]]
    axis.errorbar(value["value"], row, xerr=error, fmt="o", color=BLUE, capsize=4)
axis.axvline(0, color="black", linestyle="--", linewidth=1)
axis.axvline(math.log(2), color=GREEN, linestyle="--", linewidth=1)
axis.set_yticks(range(len(jsd_bounds)), [value["discriminator"].replace(", ", ",\n") for value in jsd_bounds])
axis.set(xlabel="lower bound on the JSD of real and generated digits, nats (green: log 2, no overlap)")
axis.set_ylim(-0.5, len(jsd_bounds) - 0.5)
axis.grid(alpha=0.2, axis="x")
plt.show()

# %% [markdown]
# The curve ends near the equilibrium, and D as trained is no more accurate than a coin toss. Yet this is not the
# equilibrium. Once calibrated, the same D classifies most digits correctly: only its threshold was off at that moment.
# And within a few steps a fresh D finds that generated and real digits hardly overlap.
#
# A balance between two networks that are still learning proves nothing. The distance to the equilibrium has to be
# measured.
#
# More: [Equilibrium](../../docs/equilibrium.md) explains every value, its interval and its budget.
