# %% [markdown]
# # 2. 两个网络的博弈：CIFAR-10
#
# 一个网络画图，另一个网络判断哪些图是画出来的，哪些是真实的。除了对方的反应，它们没有别的老师。
# 这里的两个网络都只用最普通的全连接层，和最早介绍这个题目的文章一样。
#
# 我们先亲手写出这场博弈，再完整地训练一遍，看它怎样失败，弄清原因，然后治好它。
#
# 图像来自 CIFAR-10：程序先到环境变量 `RIVALS_DATA` 指定的文件夹里找，找不到就下载（170 MB）。
# 下面的全部内容大约需要一个处理器核心运行十二分钟。

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
# ## 两个玩家
#
# **生成器** G 把 100 个随机数变成 3 × 32 × 32 = 3,072 个数：一张图。它的最后一层是 tanh，所以画出的值在 −1 到 1
# 之间。
#
# **判别器** D 把 3,072 个数变成一个数，叫作 *logit*：大于 0 表示“真实”，小于 0 表示“画的”。对 logit 取 sigmoid，
# 就是 D 认为图像真实的概率，记作 D(x)。

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
# ## 把每一回合写出来
#
# 两个损失都是二元交叉熵，两个玩家逐批轮流行动。
#
# 1. **D 的回合。** 它看一批真实图像，应当答 1；再看一批画出来的图像，应当答 0。画出来的图像*保持不变*：
#    生成它们时不记录梯度，所以这一回合不会影响到 G。
# 2. **G 的回合。** 它画一批新图，希望 D 答 1。梯度穿过 D 流回 G，但只有 G 的权重迈出一步。
#
# 有一个细节很容易忘：真实图像的像素是 0 到 255，必须先变换到 G 作画的范围。

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
# ## 怎样读曲线
#
# 每一批之后，我们记下了两个损失，以及 D 对真实图像和画出的图像的平均回答。虚线是**平局**：如果 D 的判断不比抛硬币强，
# 它就处处答 1/2，自己的损失是 2 log 2 = 1.386，G 的损失是 log 2 = 0.693。
#
# 这里的损失并不代表质量。它只说明一个玩家面对另一个玩家时表现如何，而对手也在学习。


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
# ## 用 Rivals 写同一场博弈
#
# 一场博弈由玩家、回合和每个回合的损失组成；所有博弈都由同一个循环来进行。`readings` 是其他值得记录的数。`play`
# 把每条记录交给 `show`：这里只是放进一个列表。

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
# ## 完整的训练
#
# 配方 `mlp-classic` 正是这场博弈：同样的层，二元交叉熵，双方都用 2e-4 的 Adam，每批 100 张。`rivals.train`
# 补上了一次真正的训练所需要的东西：记下每一个数，反复用**同样的 48 个隐向量**画样本图，并且自己监视自己。
#
# 图像数越多，训练越长。如果你有一个小时，可以写 `until="20 epochs"`：画出的图会变成一团团彩色的云，而且仍然彼此相像。

# %%
UNTIL = "5 epochs"
classic = rivals.train("cifar10", recipe="mlp-classic", until=UNTIL, seed=0, out=runs / "classic", quiet=True)


def batches(run):
    """The records of a run's batches."""
    return [record for record in run.records() if "loss/discriminator" in record]


curves(batches(classic), "mlp-classic")

# %% [markdown]
# 双方没有安定下来，而是来回摆动：一方刚找到对策，另一方又找到下一个。总的来说 D 领先：它把真实图像认作真实，
# 把多数画出的图识破，G 的损失在自己的虚线之上。再看 G 这段时间画了些什么。


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
# 四十八个不同的隐向量，很长时间里画出的是同一张图，后来也只是几种灰色的云：这就是**模式坍塌**。训练自己发现了它：
# 程序比较样本图里各图之间的距离和真实图像之间的距离。
#
# 不看样本图也能发现：从一张画出的图到下一张，每个像素变化多大？


# %%
def spread(images):
    """The standard deviation of each pixel over the images, averaged over the pixels; pixels run from 0 to 255."""
    return np.asarray(images, np.float32).std(0).mean()


print(f"real images: {spread(cifar.images[:2000]):.1f}")
print(f"drawn by mlp-classic: {spread(classic.generator.sample(2000, seed=1)):.1f}")

# %% [markdown]
# ## 为什么会失败：最小的博弈
#
# 只留下博弈本身，其余全部去掉。真实数据全是数 0。G 只有一个权重 θ，画出的就是 θ；D 只有一个权重 ψ，回答 ψ · x。
# 平局时两者都是 0。这叫 *Dirac-GAN*（Mescheder 等，2018），下图中每个点是一轮。
#
# 每个玩家都只沿着自己的损失往下走。可是放在一起，它们绕着平局打转，而不是径直走过去：G 一动，D 的最优回答也跟着变了。
#
# **R1** 是一种惩罚：γ/2 乘以 D 在真实数据处斜率的平方。平局时 D 必须是平的，所以惩罚的正是那里的斜率，
# 打转因此受到阻尼。


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
# 在图像上还有第二个原因。全连接的 D 一次看到全部 3,072 个数，总能找到*某个*微小的破绽来识别画出的图，
# 而它在别处的斜率多半是噪声。G 受到的推力很大，方向却和数据没有多少关系。
#
# ## 治法
#
# 配方 `mlp` 用的是同样的两个网络。它改动的全部设置如下：

# %%
before, after = RECIPES["mlp-classic"](), RECIPES["mlp"]()
for field in dataclasses.fields(before):
    old, new = getattr(before, field.name), getattr(after, field.name)
    if old != new:
        print(f"{field.name:17} {old!s:>14}  ->  {new}")

# %% [markdown]
# - **relativistic（相对论损失）**：D 不再判断一张图是否真实，而是判断两张图中哪张*更*真实。G 要胜过的是一张真实图像，
#   而不是一条固定的线，反复画同一张能骗过 D 的图就不再划算。
# - **r1、r2**：就是上面的阻尼，分别用在真实图像和画出的图像上；每八步做一次，强度乘八，效果相近而花费更少。
# - **更高的学习率、更小的动量**：有了阻尼，高学习率是安全的；而动量会让玩家继续朝对手早已应对过的方向走。
# - **ema**：样本图展示的是 G 最近权重的平均，它比权重本身打转得少。
#
# （`sheet` 只是样本图上的图像张数；我们仍用 48。）

# %%
cured = rivals.train("cifar10", recipe="mlp", sheet=48, until=UNTIL, seed=0, out=runs / "cured", quiet=True)
sheets(cured)
print("alarms at the end:", ", ".join(cured.result()["alarms"]) or "none")
print(f"spread of a pixel: {spread(cured.generator.sample(2000, seed=1)):.1f}")

# %% [markdown]
# 层是一样的，看过的图像数也是一样的。图是模糊的，因为全连接层不知道哪个像素挨着哪个。但它们各不相同，有照片的颜色，
# 时而能看到一条地平线，或者背景前的什么东西。
#
# 放在一起看：

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
# 再看两张图之间会画出什么：从一个隐向量走到下一个，共走四次。

# %%
generator = cured.generator
ends = generator.latents(8, seed=3)
walks = [
    torch.lerp(start, end, t) for start, end in zip(ends[:4], ends[4:], strict=True) for t in torch.linspace(0, 1, 12)
]
grid(generator.draw(torch.stack(walks)).numpy(), columns=12, scale=2)

# %% [markdown]
# ## 接下来
#
# - 想要更好的图，需要懂得“相邻”的网络和更多时间：`rivals train cifar10 --recipe r3`。
# - 这场博弈离平局究竟有多远？见第 3 个笔记本，以及 `rivals score RUN --equilibrium`。
# - 每条曲线、每个警报的含义：[博弈的原理](../../docs/game.md)（英文）。
