# %% [markdown]
# # 2. GAN 的博弈：CIFAR-10
#
# 一个网络生成图像，另一个网络判断图像是真实的还是生成的。每个网络都只从对方那里学习：这是一场双人博弈。这里的两个网络
# 都由全连接层组成，和最早的 GAN 文章一样。
#
# 我们先手写训练循环，再完整训练一遍，看它怎样因模式坍塌而失败，弄清原因，然后加以改进。
#
# 真实图像来自 CIFAR-10：程序先到环境变量 `RIVALS_DATA` 指定的文件夹里找，找不到就下载（170 MB）。全部内容单核运行约
# 一刻钟。

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
# ## 两个玩家
#
# **生成器** G 把*隐向量* z（100 个随机数）映射成一张图像，即 3 × 32 × 32 = 3,072 个数。最后一层是 tanh，所以像素在
# [−1, 1] 之间。
#
# **判别器** D 把一张图像映射成一个数，即 *logit*：正数表示“真实”，负数表示“生成”。对 logit 取 sigmoid，就得到 D 认为
# 图像真实的概率，记作 D(x)。

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
# ## 手写训练循环
#
# 两个损失都是二元交叉熵，两个玩家在每一批数据上轮流更新。
#
# 1. **判别器的一步。** 一批真实图像的标签是 1，一批生成图像的标签是 0。生成图像在这里是常量：生成时不记录梯度，所以这
#    一步不会影响 G。
# 2. **生成器的一步。** G 生成新的一批图像；D 越认为它们是真实的（标签 1），G 的损失就越低。梯度穿过 D 传到 G，但只更新
#    G 的参数。
#
# 有一个细节很容易忘：真实图像的像素是 0 到 255，必须先缩放到 G 的输出范围。

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
# ## 怎样读曲线
#
# 每一批之后，我们记录两个损失，以及 D 在真实图像和生成图像上的平均输出。虚线是**均衡**：如果 D 只能猜，它的输出处处是
# 1/2，它的损失是 2 log 2 = 1.386，G 的损失是 log 2 = 0.693。
#
# 这里的损失并不衡量质量。它只说明一个玩家面对另一个玩家时表现如何，而对方也在学习。


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
# ## 用 Rivals 写同一场博弈
#
# `Game` 由玩家和他们的回合（`Turn`）组成，每个回合有自己的损失；所有博弈都用同一个循环 `play` 来训练。`readings` 是其他
# 需要记录的值。回调函数会收到每条记录：这里只是把它放进一个列表。

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
# ## 完整的训练
#
# 配方 `mlp-classic` 就是这场博弈：同样的层，二元交叉熵，双方都用学习率为 2e-4 的 Adam，批大小 100。`rivals.train` 补上
# 了实际训练需要的东西：记录每个值，用**同样的 48 个隐向量**保存样本网格图，并监控训练过程。
#
# 如果把 `UNTIL` 设得更长，例如 `"20 epochs"`，所需时间按比例增加。

# %%
UNTIL = "5 epochs"
classic = rivals.train("cifar10", recipe="mlp-classic", until=UNTIL, seed=0, out=runs / "classic", quiet=True)
plot_curves([record for record in classic.records() if "loss/discriminator" in record], "mlp-classic")

# %% [markdown]
# 这场博弈没有稳定下来，而是在振荡。总的来说 D 领先：无论真实图像还是生成图像，大多数它都判断正确，而 G 的损失高于
# 均衡值。这段时间 G 生成了什么？


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
# 四十八个不同的隐向量，但在前 100,000 张图像的训练中，生成的几乎是同一张图像，后来也只是几种云雾：这就是**模式坍塌**。
# 程序根据多样性自己发现了它。*多样性*是网格图中每张图像到与它最相似的那张图像的平均距离，再除以真实图像的相应值。
#
# ## 为什么会失败：最小的博弈
#
# 把博弈简化到极致。真实数据全是数 0。G 只有一个参数 θ，输出就是 θ；D 只有一个参数 ψ，输出的 logit 是 ψ · x。均衡处两者
# 都是 0。这就是 *Dirac-GAN*（Mescheder 等，2018）；下图中每个点是一步训练。
#
# 每个玩家都只沿着自己的损失做梯度下降。可是放在一起，它们绕着均衡打转，接近均衡的速度越来越慢：G 一动，D 的最优应对就
# 变了，反过来也一样。
#
# **R1** 是一种梯度惩罚：γ/2 乘以 D 在真实数据处梯度范数的平方，这里就是 γ/2 · ψ²。在均衡处 D 必须是平的，所以这个惩罚把
# D 拉向那里，使旋转受到阻尼。


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
# 对图像来说还有第二个原因。全连接的 D 同时看到全部 3,072 个值，而且它的梯度不受任何限制：它总能找到*某个*微小的差别，把
# 生成图像与真实图像分开。于是 G 得到的梯度很大，但方向更多取决于 D 的噪声，而不是数据。
#
# ## 改进
#
# 配方 `mlp` 训练的是同样的两个网络。它改动的全部设置如下：

# %%
before, after = RECIPES["mlp-classic"](), RECIPES["mlp"]()
for field in dataclasses.fields(before):
    old, new = getattr(before, field.name), getattr(after, field.name)
    if old != new:
        print(f"{field.name:17} {old!s:>14}  ->  {new}")

# %% [markdown]
# - **相对论损失（relativistic）**：D 不再对单张图像分类，而是比较一张真实图像和一张生成图像。G 要胜过的是一张真实图像，
#   而不是固定的阈值；反复生成同一张令人信服的图像就不够了。
# - **R1、R2**：真实图像和生成图像上的梯度惩罚，也就是上面的阻尼。每八步计算一次，强度乘八：开销更小，效果几乎相同。
# - **更高的学习率，更小的动量**：有了阻尼，较高的学习率也能稳定。动量则会让玩家继续朝对方已经应对过的方向走。
# - **EMA**：样本由 G 的权重的指数移动平均生成，它比权重本身振荡得少。
#
# （`sample_grid` 只是网格图中的图像张数；我们仍用 48。）

# %%
stabilized = rivals.train(
    "cifar10", recipe="mlp", sample_grid=48, until=UNTIL, seed=0, out=runs / "stabilized", quiet=True
)
show_sample_grids(stabilized)
print("alarms at the end:", ", ".join(alarm["alarm"] for alarm in stabilized.result()["alarms"]) or "none")

# %% [markdown]
# 层是一样的，看过的图像数也是一样的。样本是模糊的，因为全连接层不知道哪些像素相邻。但它们彼此不同，有照片的颜色，有的能
# 看出地平线，或者背景前的物体。
#
# 两次训练的多样性：

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
# 最后是隐空间中的插值：每一行从一个隐向量出发，以相等的步长走到另一个。

# %%
generator = stabilized.generator
z = generator.latents(8, seed=3)
interpolated = [
    torch.lerp(start, end, t) for start, end in zip(z[:4], z[4:], strict=True) for t in torch.linspace(0, 1, 12)
]
make_grid(generator.generate(torch.stack(interpolated)).numpy(), columns=12, scale=2)

# %% [markdown]
# ## 接下来
#
# - 想要更好的图像，需要卷积和更多的时间：`rivals train cifar10 --recipe r3`。
# - 这场博弈离均衡有多远？见第 3 个笔记本，以及 `rivals score RUN --equilibrium`。
# - 每条曲线、每个警报的含义：[GAN 的训练](../../docs/game.md)（英文）。
