# %% [markdown]
# # 3. 交叉熵、熵与均衡
#
# 几乎所有分类器的损失，以及最早的 GAN 的损失，都是交叉熵。这个笔记本从定义出发推导它，并仔细对待张量的形状；然后介绍熵
# 和散度，以及它们对 GAN 的意义：判别器还能分辨出多少。
#
# 只需要软件包自带的 5,000 个手写数字，约半分钟。

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
# ## 信息量
#
# 我们认为概率为 q 的事件发生了，它的*信息量*（惊讶度）是 −log q：q 为 1 时为零，q 越小则越大，独立事件的信息量可以
# 相加。用自然对数，单位是*奈特*（nat）；以 2 为底，单位是*比特*（bit）。抛一次公平硬币就是一比特。

# %%
for q in (1, 0.5, 0.25, 0.1, 0.001):
    print(f"q = {q:<6} surprise {math.log(1 / q):.3f} nats = {math.log2(1 / q):.3f} bits")

# %% [markdown]
# ## 熵
#
# 分布 p 的**熵**是 p 之下信息量的期望：H(p) = −Σ p log p。公平硬币的熵是一比特；几乎总是落在同一面的硬币几乎没有熵，
# 因为抛掷结果几乎不带信息。

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
# ## 交叉熵
#
# 设 p 是真实分布，q 是预测分布。**交叉熵**是预测的期望信息量：H(p, q) = −Σ p log q。
#
# 对 n 个样本、C 个类别的一批数据，要注意形状：
#
# - q 的形状是 (n, C)：每个样本一行，C 个概率之和为 1。
# - p 的形状可以是 (n, C)（独热或软标签），也可以是 (n,)（正确类别的编号）。
# - 沿最后一个轴求和得到 (n,)，每个样本一个值；它们的平均就是损失。

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
# ## 二元交叉熵的形状不同
#
# 判别器要解决 n 个二分类问题：“真实还是生成”。每个样本一个数就够了：形状为 (n,) 的 q 是“真实”的概率，1 − q 是“生成”的
# 概率。这就是**二元交叉熵**。
#
# 典型的陷阱：一个参数的形状是 (n, 1)，另一个是 (n,)。程序不会报错；两者广播成 (n, n)，每个预测都与每个标签比较了一遍。

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
# ## logit，以及为什么不要对 sigmoid 取对数
#
# 网络输出的是 *logit* s，概率是 sigmoid(s)。|s| 很大时，概率会被舍入成 1 或 0，而 log(1 − 1) 是 −∞。
# 解决办法是代数变换：−log(1 − sigmoid(s)) = log(1 + eˢ) = softplus(s)，
# −log sigmoid(s) = softplus(−s)。值相同，而且数值稳定。

# %%
s = torch.tensor([0.0, 5.0, 20.0, 200.0])
print("logit s              ", s.tolist())
print("-log(1 - sigmoid(s)) ", (-torch.log(1 - torch.sigmoid(s))).tolist())
print("softplus(s)          ", softplus(s).tolist())

# %% [markdown]
# ## KL：错误分布的代价
#
# 即使用真实分布来预测，期望信息量也有 H(p)。错误的分布额外增加的部分就是 **Kullback-Leibler 散度**：KL(p‖q) = H(p, q) −
# H(p)。只有 q = p 时它才为 0。它不对称；如果某处 q 为 0 而 p 不为 0，它是无穷大。H(p) 与 q 无关，所以对 q 最小化交叉熵
# 就是最小化 KL 散度。

# %%
p, q = np.array([0.5, 0.4, 0.1]), np.array([0.2, 0.5, 0.3])
print("H(p, q) - H(p) =", cross_entropy(p[None], q[None]) - entropy(p))
print("KL(p || q)     =", kl(p, q))
print("KL(q || p)     =", kl(q, p))
print("KL where q is 0 and p is not:", kl([0.5, 0.5], [1.0, 0.0]))

# %% [markdown]
# ## JSD：总是有限的散度
#
# **Jensen-Shannon 散度**把两个分布分别与它们的混合分布 m = (p + q) / 2 比较：KL(p‖m) 的一半加上 KL(q‖m) 的一半。它是
# 对称的，上界是 log 2，即一比特，在两者不重叠时取到。下面是两个逐渐分开的高斯分布。

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
# ## 最优判别器
#
# 设 p 是真实图像的分布，g 是生成图像的分布。对固定的 g，损失最小的判别器是 D*(x) = p(x) / (p(x) + g(x))，它的损失恰好
# 是 **2 log 2 − 2 JSD(p, g)**（Goodfellow 等，2014）。
#
# 所以 D 度量的是一种散度。当 g = p 时，D* 处处等于 1/2，损失是 2 log 2：这就是**均衡**。

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
# ## 还剩多少未知
#
# 抛一枚硬币：正面就给 D 看一张真实图像，反面就给它看一张生成图像，让 D 预测硬币的结果。看图像之前，未知的信息是一比特。
# 最优 D 的损失的一半，是看过图像之后**剩余**的熵（条件熵）；JSD 则是图像提供的信息（互信息）。
#
# 在均衡处，图像不提供信息，整整一比特仍然未知。如果 D 完全获胜，就没有剩余；而面对一个从不犹豫的 D，G 几乎学不到东西。

# %%
for shift in (0, 1, 2, 3, 5):
    information = jsd(gaussian(0), gaussian(shift), unit="bits")
    print(f"distance {shift}: the image gives {information:.3f} bits, {1 - information:.3f} remain")

# %% [markdown]
# ## 需要学习的判别器
#
# 训练得到的 D 不是最优的。但在留出图像上，*任何* D 的期望损失都不小于 2 log 2 − 2 JSD。换句话说，对任何 D 都有
# **JSD ≥ log 2 − 损失 / 2**。能把两者分开的 D 证明了散度的存在；分不开的 D 什么也证明不了，它也许只是太弱。
#
# 下面让一个小网络学习区分距离为 1 的两个高斯分布，并用新的点来评估。

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
# 这个下界上升到真实值附近，然后停在那里，只有 4,000 个点带来的噪声。
#
# ## 一个真实的 GAN
#
# 第 2 个笔记本里的普通 GAN，这次用 4,500 个数字：全连接层，二元交叉熵。D 的损失的一半，换算成比特，就是剩余熵的估计。

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
# 评估这个 D 用的正是它的训练图像，而且 G 也在不断变化，所以单凭曲线什么也证明不了。`rivals.equilibrium`（命令行是
# `rivals score RUN --equilibrium`）在两个网络都没有见过的 500 个测试数字上测量：
#
# - 训练得到的 D，以及*校准*后的 D：用逻辑回归把它的分数映射为概率；
# - 一个**全新的** D，以固定的预算针对训练好的 G 训练。如果它能区分两类图像，就说明并没有达到均衡；
# - **对偶间隙**：如果只让其中一方继续训练，它还能改进多少。

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
# 曲线最后接近均衡，而训练得到的 D 的准确率也不比抛硬币高。但这并不是均衡。校准之后，同一个 D 能正确区分绝大多数数字：
# 只是当时的阈值不对。而全新的 D 只用几步就发现，生成的数字与真实的数字几乎不重叠。
#
# 两个仍在学习的网络之间的平衡什么也证明不了。离均衡有多远，必须去测量。
#
# 更多内容：[均衡](../../docs/equilibrium.md)（英文）解释每个值、它的区间和预算。
