# %% [markdown]
# # 1. 从被骗的分类器到稳健的分类器
#
# 一个网络学会了认数字，几乎总是对的。然后我们有意把每个像素改动一点点，它就多半是错的。我们来看这是怎么做到的、
# 为什么有效，以及什么办法管用：用这样的图像来训练。
#
# 只需要软件包自带的 5,000 个手写数字，大约需要一个处理器核心运行一分半钟。

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy

import rivals
from rivals import Linf
from rivals.attacks import augment, fgsm, noise, pgd
from rivals.reports.sheet import grid

BLUE, RED, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
runs = Path(tempfile.mkdtemp())

test = rivals.load_images("mnist5k", split="test")
x = torch.from_numpy(test.images) / 255  # (500, 1, 28, 28), from 0 (black) to 1 (white)
y = torch.from_numpy(test.labels)  # (500,)
print("test images", tuple(x.shape), "labels", tuple(y.shape))
grid(test.images[::25], columns=10)

# %% [markdown]
# ## 一个普通的分类器
#
# 一个小卷积网络从 4,500 个数字中学习。用来测试的是另外 500 个。

# %%
NET = {"widths": (8, 16), "seed": 0, "quiet": True}
plain = rivals.classify("mnist5k", until="8 epochs", lr=2e-3, out=runs / "plain", **NET).classifier


def right(model, images):
    """The share of test images that a model classifies rightly."""
    with torch.no_grad():
        return (model(images).argmax(1) == y).float().mean().item()


print(f"right on {right(plain, x):.1%} of the test images")

# %% [markdown]
# ## 快速梯度符号法
#
# 网络学习时问的是：*权重*该往哪个方向走，损失才会下降？同样的梯度也可以对*图像*来问：每个像素该往哪个方向走，
# 损失才会**上升**？
#
# 快速梯度符号法（FGSM，Goodfellow 等，2015）取这个梯度的符号，把每个像素都向上或向下移动同样小的一步 eps。仅此而已。

# %%
EPS = 0.2  # pixels run from 0 to 1


def fgsm_by_hand(model, images, labels, eps):
    """One step up the loss, in every pixel by eps; still an image, so from 0 to 1."""
    images = images.clone().requires_grad_()
    loss = cross_entropy(model(images), labels)
    (gradient,) = torch.autograd.grad(loss, images)
    return (images.detach() + eps * gradient.sign()).clamp(0, 1)


stepped = fgsm_by_hand(plain, x, y, EPS)
print(f"right before {right(plain, x):.1%}, after one step of {EPS}: {right(plain, stepped):.1%}")
library = fgsm(plain, x, y, Linf(EPS))
print(f"by rivals.attacks.fgsm: {right(plain, library):.1%}")

# %% [markdown]
# 这些数字你仍然全都认得出，网络却认错了大半。


# %%
def show(rows, titles, count=8):
    """Rows of images; above each, what the plain network takes it for, red where that is wrong."""
    _, axes = plt.subplots(len(rows), count, figsize=(1.25 * count, 1.55 * len(rows)), layout="constrained")
    for line, (images, title) in enumerate(zip(rows, titles, strict=True)):
        with torch.no_grad():
            said = plain(images[::61]).argmax(1)
        for axis, image, answer, label in zip(axes[line], images[::61], said, y[::61], strict=False):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"'{answer}'", color="black" if answer == label else RED, fontsize=11)
            axis.set(xticks=[], yticks=[])
        axes[line, 0].set_ylabel(title, fontsize=9)
    plt.show()


show([x, stepped], ["original", f"one step, eps {EPS}"])

# %% [markdown]
# ## 随便什么改动都行吗？
#
# 网络只是太敏感，所以同样大小的任何改动都有效吗？我们来试四种：
#
# - **噪声**：每个像素随机移动，幅度不超过 eps。
# - **增广**：把整张图平移、旋转、裁剪、变亮或变暗，取十次中最坏的一次。它不受 eps 的限制。
# - **FGSM**：就是上面的那一步。
# - **PGD**：同样跟着梯度走，但分成许多小步，每一步都不超出 eps 的范围。

# %%
ball = Linf(EPS)  # all images in which no pixel differs from the original by more than EPS
ATTACKS = {
    "nothing": lambda model: x,
    "noise": lambda model: noise(model, x, y, ball, seed=0),
    "augmentation": lambda model: augment(model, x, y, trials=10, seed=0),
    "FGSM": lambda model: fgsm(model, x, y, ball),
    "PGD, 10 steps": lambda model: pgd(model, x, y, ball, steps=10, seed=0),
}
for name, attack in ATTACKS.items():
    print(f"{name:14} {right(plain, attack(plain)):6.1%} right")
show([ATTACKS[name](plain) for name in ("noise", "augmentation", "FGSM")], ["noise", "augmentation", "FGSM"])

# %% [markdown]
# 噪声对它几乎毫无影响。十次平移和旋转中最坏的一次确实能骗过它：它只见过端正、居中的数字。这是无知，可以教会。
# 梯度则是另一回事：改动并不比噪声大，却几乎击倒了一切。
#
# ## 梯度为什么比噪声强得多
#
# 沿着一个方向看，网络几乎是一条直线。如果 784 个像素都朝着*同一*个目的各贡献一点，加起来就很多：eps 乘以 784
# 再乘以平均斜率。而随机的符号大多互相抵消。
#
# 下图就是证明：从测试图像出发，分别沿梯度的符号和随机的符号走，损失如何变化。

# %%
signs = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
slopes = (fgsm_by_hand(plain, x, y, 1e-6) - x).sign()
steps = torch.linspace(0, 0.3, 16)
_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for direction, colour, label in ((slopes, RED, "signs of the gradient"), (signs, BLUE, "random signs")):
    with torch.no_grad():
        losses = [cross_entropy(plain(x + step * direction), y).item() for step in steps]
    axis.plot(steps, losses, "o-", markersize=3, color=colour, label=label)
axis.set(xlabel="distance eps, share of the range from black to white", ylabel="mean loss, nats")
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# ## 一场博弈
#
# 训练移动权重，让损失变小；攻击移动像素，让损失变大。让双方对弈：
#
# > 对权重求最小：eps 以内的改动所能造成的**最大**损失的平均值
#
# 这就是**对抗训练**（Madry 等，2018）：对每一批图像重新发起攻击，从被攻击的图像中学习。下面亲手写出它的整个循环，
# 跑几批看看。

# %%
train = rivals.load_images("mnist5k", split="train")
net = rivals.load(runs / "plain")
net.train().requires_grad_(True)
adam = torch.optim.Adam(net.parameters(), lr=1e-3)
order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
for batch in order[:2560].split(128):
    images = torch.from_numpy(train.images)[batch] / 255
    labels = torch.from_numpy(train.labels)[batch]
    attacked = fgsm_by_hand(net, images, labels, EPS)  # the attack's move
    adam.zero_grad()
    cross_entropy(net(attacked), labels).backward()  # the classifier's move
    adam.step()
net.eval()
print(
    f"after 20 batches: {right(net, fgsm(net, x, y, ball)):.1%} stand against FGSM, before {right(plain, library):.1%}"
)

# %% [markdown]
# ## 该从什么学起
#
# `rivals.harden` 完整地进行这场博弈，并且一路监视。普通网络的三个副本继续学习，轮数相同：分别从噪声、从增广的图、
# 从梯度的图中学。最后一种用 N-FGSM 生成：先加噪声，再走一步。没有这层噪声，分类器可能只学会抵挡这一步，
# 别的什么都挡不住。

# %%
START = {"weights": str(runs / "plain"), "until": "5 epochs", "optimizer": "adam", "lr": 2e-3, **NET}
noisy = rivals.harden("mnist5k", ball, method="noise", out=runs / "noise", **START).classifier
moved = rivals.harden("mnist5k", ball, method="augment", out=runs / "augment", **START).classifier
hard = rivals.harden(
    "mnist5k", ball, method="fgsm", start="beyond", step=1.0, out=runs / "gradient", **START
).classifier

models = {"plain images": plain, "noise": noisy, "augmentation": moved, "the gradient": hard}
standing = torch.tensor([[right(model, attack(model)) for attack in ATTACKS.values()] for model in models.values()])
_, axis = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
axis.imshow(standing, cmap="cividis", vmin=0, vmax=1, aspect="auto")
for (row, column), value in zip(
    torch.cartesian_prod(torch.arange(4), torch.arange(5)), standing.flatten(), strict=True
):
    axis.text(column, row, f"{value:.0%}", ha="center", va="center", color="black" if value > 0.5 else "white")
axis.set_xticks(range(5), ATTACKS)
axis.set_yticks(range(4), models)
axis.set(xlabel="attacked by", ylabel="learnt from", title=f"right on so many of 500 test images, eps {EPS}")
plt.show()

# %% [markdown]
# 按列来看。噪声伤不了谁，从噪声中学习，也学不到多少别的。增广的图教会了它所包含的东西。要抵挡梯度，
# 只有梯度自己的图像管用：其他图像展示的都不是危险所在的地方。
#
# 在没有被攻击的图像上，这几乎不花什么代价。
#
# ## 加固前后，各个 eps

# %%
CURVE = (0.05, 0.1, 0.15)
before = rivals.evaluate(plain, "mnist5k", ball, attack="pgd(steps=20)", curve=CURVE, n=200, quiet=True)
after = rivals.evaluate(hard, "mnist5k", ball, attack="pgd(steps=20)", curve=CURVE, n=200, quiet=True)
_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for report, colour, label in ((before, RED, "plain"), (after, BLUE, "trained on the gradient's images")):
    radii = [eps for eps, _ in report.curve]
    low, high = zip(*(share.interval for _, share in report.curve), strict=True)
    axis.fill_between(radii, low, high, color=colour, alpha=0.2, linewidth=0)
    axis.plot(radii, [share.value for _, share in report.curve], "o-", color=colour, label=label)
axis.set(xlabel="eps, share of the range from black to white", ylabel="share that stands", ylim=(0, 1))
axis.legend()
axis.grid(alpha=0.2)
plt.show()
print(f"at eps {EPS}: plain {before.robust}, hardened {after.robust}")
print("hardened:", after.verdict)

# %% [markdown]
# 图中的色带是 95 % 区间：200 张图像只能说明这么多。
#
# ## 它们各自在看什么
#
# 损失对每个像素的梯度，显示了分类器的回答取决于哪里。普通网络的梯度是一些散落的斑点，有的在数字之外；加固后的网络，
# 梯度沿着笔画：要改变它的回答，就得改变数字本身。


# %%
def slopes_of(model, images, labels):
    """The slope of the loss for each pixel, scaled to -1..1 an image."""
    images = images.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(cross_entropy(model(images), labels, reduction="sum"), images)
    return slopes / slopes.abs().amax((1, 2, 3), keepdim=True)


some, names = x[::61][:8], y[::61][:8]
_, axes = plt.subplots(3, 8, figsize=(10, 4.2), layout="constrained")
rows = {"image": some, "plain": slopes_of(plain, some, names), "hardened": slopes_of(hard, some, names)}
for line, (title, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(line, images, strict=True):
        scale = {"cmap": "gray", "vmin": 0} if title == "image" else {"cmap": "PuOr", "vmin": -1}
        axis.imshow(image[0], vmax=1, **scale)
        axis.set(xticks=[], yticks=[])
    line[0].set_ylabel(title)
plt.show()

# %% [markdown]
# ## 接下来
#
# - 更强的加固：`rivals harden mnist --eps 0.3 --method pgd --until "20 epochs"`。
#   [加固](../../docs/hardening.md)（英文）一页有全部方法，以及训练时监视什么。
# - 一个数字的价值取决于背后的攻击：见第 5 个笔记本。
# - 另一场两个网络的博弈，这一场会画图：见第 2 个笔记本。
