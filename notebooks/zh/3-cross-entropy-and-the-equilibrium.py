# %% [markdown]
# # 3. 交叉熵、熵与平局
#
# 几乎所有分类器的损失，以及最早的 GAN 的损失，都是交叉熵。这里从定义出发把它写出来，仔细对待形状；然后是熵和各种散度，
# 以及它们对一场博弈意味着什么：判别器还剩下什么可以知道。
#
# 只需要软件包自带的 5,000 个手写数字，大约半分钟。

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
# ## 惊讶程度
#
# 有人认为某件事发生的概率是 q，而它发生了，他有多惊讶？惊讶程度是 −log q：如果 q 是 1，就毫不惊讶；q 越小，越惊讶；
# 两件独立的事，惊讶可以相加。用自然对数，单位是*奈特*（nat）；用以 2 为底的对数，单位是*比特*（bit）。
# 一比特就是抛一次硬币。

# %%
for q in (1, 0.5, 0.25, 0.1, 0.001):
    print(f"q = {q:<6} surprise {math.log(1 / q):.3f} nats = {math.log2(1 / q):.3f} bits")

# %% [markdown]
# ## 熵
#
# 分布 p 的**熵**是知道 p 的人的平均惊讶程度：H(p) = −Σ p log p。公平的硬币有一比特；
# 几乎总是落在同一面的硬币几乎没有熵，因为它的结果几乎不带来新消息。

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
# ## 交叉熵
#
# 现在 p 是真相，q 是某人所相信的。**交叉熵**就是这个人的平均惊讶程度：H(p, q) = −Σ p log q。
#
# 对一批数据来说，形状占了一半的学问。一共 n 个问题，每个都问“C 类中的哪一类？”：
#
# - q 的形状是 (n, C)：每个问题一行，行内 C 个概率，和为 1。
# - p 可以是 (n, C)，独热的或软的；也可以是 (n,)，写正确类别的编号。
# - 沿最后一个轴求和，剩下 (n,)，每个问题一个惊讶值；它们的平均就是损失。

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
# ## “是真的吗？”是另一种形状
#
# 判别器问的是 n 个各有两种答案的问题。一个数就够了：形状为 (n,) 的 q 是“是”的概率，剩下的属于“否”。
# 这就是**二元交叉熵**。
#
# 同样的四个数 (n,) 很容易被当成别的东西。典型的陷阱：一边是 (n, 1)，另一边是 (n,)。程序不会报错；两者被扩展成一张 (n,
# n) 的表，每个回答都和每个标签比较了一遍。

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
# ## logit，以及为什么不对 sigmoid 取对数
#
# 网络给出的是 *logit* s，概率是 sigmoid(s)。当 D 非常确定时，概率会被舍入成 1 或 0，而 1 − 1 的对数是负无穷。
# 出路是一点代数：−log(1 − sigmoid(s)) = log(1 + eˢ) = softplus(s)，而 −log sigmoid(s) = softplus(−s)。数是一样的，
# 但不会溢出。

# %%
s = torch.tensor([0.0, 5.0, 20.0, 200.0])
print("logit s              ", s.tolist())
print("-log(1 - sigmoid(s)) ", (-torch.log(1 - torch.sigmoid(s))).tolist())
print("softplus(s)          ", softplus(s).tolist())

# %% [markdown]
# ## KL：错误的信念要付多少代价
#
# 即使知道真相，也会有 H(p) 的惊讶。错误的信念额外增加的，就是 **Kullback-Leibler 散度**：KL(p‖q) = H(p, q) − H(p)。
# 只有 q = p 时它才是 0。它不对称；如果 q 排除了 p 允许的事，它是无穷大。所以最小化交叉熵就是最小化 KL：H(p)
# 不由学习者决定。

# %%
p, q = np.array([0.5, 0.4, 0.1]), np.array([0.2, 0.5, 0.3])
print("H(p, q) - H(p) =", cross_entropy(p[None], q[None]) - entropy(p))
print("KL(p || q)     =", kl(p, q))
print("KL(q || p)     =", kl(q, p))
print("impossible things cost", kl([0.5, 0.5], [1.0, 0.0]))

# %% [markdown]
# ## JSD：总是存在的散度
#
# **Jensen-Shannon 散度**把两者都和它们的平均 m = (p + q) / 2 相比：KL(p‖m) 的一半加上 KL(q‖m) 的一半。它是对称的，
# 最大是 log 2，即一比特，这时两者毫无共同之处。下面是两条逐渐分开的钟形曲线。

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
# ## 最优的判别器
#
# 设 p 是真实图像的分布，g 是画出的图像的分布。对给定的 g，损失最小的 D 处处回答 D*(x) = p(x) / (p(x) + g(x))。
# 这时它的损失恰好是 **2 log 2 − 2 JSD(p, g)**（Goodfellow 等，2014）。
#
# 所以 D 在测量一种距离。当 g = p 时，它处处答 1/2，损失是 2 log 2：这就是**平局**。

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
# ## 还剩下什么不知道
#
# 抛一枚硬币。正面：给 D 看一张真实图像；反面：看一张画出来的。D 要说出硬币是哪一面。看之前，有一比特是未知的。D
# 的损失的一半，就是**看过之后仍然未知的**；JSD 则是这一看告诉它的。
#
# 平局时，看了等于没看，整整一比特都还未知。D 获胜时，什么都不剩；而面对一个从不犹豫的对手，G 也学不到什么。

# %%
for shift in (0, 1, 2, 3, 5):
    told = jsd(bell(0), bell(shift), unit="bits")
    print(f"distance {shift}: the look tells {told:.3f} bits, {1 - told:.3f} are left")

# %% [markdown]
# ## 需要学习的判别器
#
# 真实的 D 不是最优的。但在没有学过的图像上，*任何* D 的平均损失都至少是 2 log 2 − 2 JSD。反过来说：**JSD ≥ log 2 −
# 损失 / 2**，无论 D 是谁。能把两者分开的 D 证明了一段距离；分不开的 D 什么也证明不了，它也许只是太弱。
#
# 下面让一个小网络学着分开距离为 1 的两条钟形曲线，再用新的点来评判它。

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
# 曲线向真实值爬升，然后停在那里，只有 4,000 个点带来的噪声。
#
# ## 一场真实的博弈
#
# 第 2 个笔记本里的普通博弈，这次用 4,500 个数字：全连接层，二元交叉熵。D 的损失的一半，换算成比特，
# 就是它对一批图像仍不知道的量。

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
# 这个 D 恰恰是从被问到的图像里学来的，而且 G 在它脚下不断变化，所以单凭曲线什么也定不了。
# `rivals.equilibrium`（命令行是 `rivals score RUN --equilibrium`）用两个玩家都没见过的 500 个测试数字来问：
#
# - 博弈中的 D，以及*读出*的 D：把它的分数换算成公正的概率；
# - 一个**全新的** D，用规定的步数针对训练好的 G 学习。如果它能把图像分开，博弈的平衡就是假象；
# - **对偶间隙**：如果只有一方继续学习，它还能赢多少。

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
# 曲线结束在平局附近，而博弈中的 D 答对的次数也不比抛硬币多。可这不是平局。读出之后，同一个 D 能分清绝大多数数字：
# 它只是一时把分界线放错了位置。而全新的 D 只用几步就发现，画出的数字和真实的数字几乎没有共同之处。
#
# 所以，两个都还在学习的玩家之间的平衡什么也证明不了。离平局有多远，必须去测量。
#
# 更多内容：[均衡](../../docs/equilibrium.md)（英文）解释每个值、它的区间和预算。
