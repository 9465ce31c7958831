# %% [markdown]
# # 1. 从被骗的分类器到鲁棒的分类器
#
# 一个网络能以很高的准确率识别手写数字。我们有意把每个像素改动一点点，它就把大部分图像分错了。这个笔记本说明这样的
# **对抗样本**怎样生成、为什么有效，以及什么办法管用：用对抗样本来训练。
#
# 只需要软件包自带的 5,000 个手写数字，单核运行约一分半钟。

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch.nn.functional import cross_entropy

import rivals
from rivals import Linf
from rivals.attacks import augment, fgsm, noise, pgd
from rivals.reports.image_grid import make_grid

BLUE, RED, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
runs = Path(tempfile.mkdtemp())

test = rivals.load_images("mnist5k", split="test")
x = torch.from_numpy(test.images) / 255  # (500, 1, 28, 28), from 0 (black) to 1 (white)
y = torch.from_numpy(test.labels)  # (500,)
print("test images", tuple(x.shape), "labels", tuple(y.shape))
make_grid(test.images[::25], columns=10)

# %% [markdown]
# ## 普通的分类器
#
# 用 4,500 个数字训练一个小型卷积网络，另外 500 个作为测试集。

# %%
NET = {"widths": (8, 16), "seed": 0, "quiet": True}
plain = rivals.classify("mnist5k", until="8 epochs", lr=2e-3, out=runs / "plain", **NET).classifier


def accuracy(model, images):
    """The share of the test set that is classified correctly."""
    with torch.no_grad():
        return (model(images).argmax(1) == y).float().mean().item()


print(f"test accuracy {accuracy(plain, x):.1%}")

# %% [markdown]
# ## 快速梯度符号法
#
# 训练用的是损失对*权重*的梯度：朝哪个方向走，损失会下降？损失对*图像*的梯度回答相反的问题：每个像素朝哪个方向走，
# 损失会**上升**？
#
# 快速梯度符号法（FGSM，Goodfellow 等，2015）取这个梯度的符号，把每个像素向上或向下移动同样小的幅度 eps。

# %%
EPS = 0.2  # pixels run from 0 to 1


def fgsm_by_hand(model, images, labels, eps):
    """Images (n, C, H, W) in [0, 1], each pixel moved by eps along the sign of its gradient, then clipped to [0, 1]."""
    images = images.clone().requires_grad_()
    loss = cross_entropy(model(images), labels)
    (gradient,) = torch.autograd.grad(loss, images)
    return (images.detach() + eps * gradient.sign()).clamp(0, 1)


x_by_hand = fgsm_by_hand(plain, x, y, EPS)
print(f"accuracy {accuracy(plain, x):.1%}, under FGSM at eps {EPS}: {accuracy(plain, x_by_hand):.1%}")
x_fgsm = fgsm(plain, x, y, Linf(EPS))
print(f"under rivals.attacks.fgsm: {accuracy(plain, x_fgsm):.1%}")

# %% [markdown]
# 这些数字人仍然全都认得出，网络却把大部分分错了。


# %%
def show(rows, titles, count=8):
    """Rows of images, each with the plain network's prediction, red if wrong."""
    _, axes = plt.subplots(len(rows), count, figsize=(1.25 * count, 1.55 * len(rows)), layout="constrained")
    for row, (images, title) in enumerate(zip(rows, titles, strict=True)):
        with torch.no_grad():
            predictions = plain(images[::61]).argmax(1)
        for axis, image, prediction, label in zip(axes[row], images[::61], predictions, y[::61], strict=False):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            axis.set_title(f"'{prediction}'", color="black" if prediction == label else RED, fontsize=11)
            axis.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(title, fontsize=9)
    plt.show()


show([x, x_by_hand], ["original", f"FGSM, eps {EPS}"])

# %% [markdown]
# ## 任何扰动都有效吗？
#
# 网络是不是对同样大小的任何扰动都敏感？我们比较四种：
#
# - **噪声**：每个像素随机移动，幅度不超过 eps。
# - **数据增强**：平移、旋转、裁剪、改变亮度，取十次中最坏的一次。它不受 eps 限制。
# - **FGSM**：就是上面的一步。
# - **PGD**（投影梯度下降）：沿梯度走许多小步，每步之后投影回 eps 球内。

# %%
ball = Linf(EPS)  # no pixel may change by more than EPS
ATTACKS = {
    "none": lambda model: x,
    "noise": lambda model: noise(model, x, y, ball, seed=0),
    "augmentation": lambda model: augment(model, x, y, trials=10, seed=0),
    "FGSM": lambda model: fgsm(model, x, y, ball),
    "PGD, 10 steps": lambda model: pgd(model, x, y, ball, steps=10, seed=0),
}
for name, attack in ATTACKS.items():
    print(f"{name:14} accuracy {accuracy(plain, attack(plain)):6.1%}")
show([ATTACKS[name](plain) for name in ("noise", "augmentation", "FGSM")], ["noise", "augmentation", "FGSM"])

# %% [markdown]
# 噪声几乎没有影响。十次数据增强中最坏的一次确实能骗过网络，因为它只见过端正、居中的数字；这可以靠训练数据来弥补。
# 梯度则不同：扰动并不比噪声大，却能在几乎每一张图像上骗过网络。
#
# ## 梯度为什么比噪声强得多
#
# 沿着一个方向看，网络近似线性。如果 784 个像素都把损失推向*同一个*方向，效果就会累加：eps × 784 × 平均梯度绝对值。
# 而随机符号大多互相抵消。
#
# 下图是测试图像的损失，分别沿梯度符号和随机符号的方向变化。

# %%
signs = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
gradient_signs = (fgsm_by_hand(plain, x, y, 1e-6) - x).sign()
steps = torch.linspace(0, 0.3, 16)
_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for direction, color, label in ((gradient_signs, RED, "signs of the gradient"), (signs, BLUE, "random signs")):
    with torch.no_grad():
        losses = [cross_entropy(plain(x + step * direction), y).item() for step in steps]
    axis.plot(steps, losses, "o-", markersize=3, color=color, label=label)
axis.set(xlabel="eps (pixels in [0, 1])", ylabel="mean loss, nats")
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# ## 对抗训练
#
# 训练对权重求损失的最小值，攻击对像素求损失的最大值。合在一起就是一个极小极大博弈：
#
# > 对权重求最小：eps 以内的扰动所造成的**最大**损失的平均值
#
# 这就是**对抗训练**（Madry 等，2018）：用当前的权重攻击每一批图像，再用得到的对抗样本训练。下面是完整的循环，
# 先跑几批。

# %%
train = rivals.load_images("mnist5k", split="train")
net = rivals.load(runs / "plain")
net.train().requires_grad_(True)
adam = torch.optim.Adam(net.parameters(), lr=1e-3)
order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
for batch in order[:2560].split(128):
    images = torch.from_numpy(train.images)[batch] / 255
    labels = torch.from_numpy(train.labels)[batch]
    x_adv = fgsm_by_hand(net, images, labels, EPS)  # maximize over the pixels
    adam.zero_grad()
    cross_entropy(net(x_adv), labels).backward()  # minimize over the weights
    adam.step()
net.eval()
print(f"accuracy under FGSM: before {accuracy(plain, x_fgsm):.1%}, ", end="")
print(f"after 20 batches {accuracy(net, fgsm(net, x, y, ball)):.1%}")

# %% [markdown]
# ## 用什么来训练
#
# `rivals.harden` 完整地进行这场博弈，并监控训练过程。普通网络的三个副本各自再训练同样的轮数：分别用噪声图像、
# 增强图像和对抗样本。对抗样本由 N-FGSM 生成：先加噪声，再走一步。如果没有噪声，单步对抗训练可能出现*灾难性过拟合*：
# 网络只对这一步攻击鲁棒。

# %%
START = {"weights": str(runs / "plain"), "until": "5 epochs", "optimizer": "adam", "lr": 2e-3, **NET}
noise_trained = rivals.harden("mnist5k", ball, method="noise", out=runs / "noise", **START).classifier
augment_trained = rivals.harden("mnist5k", ball, method="augment", out=runs / "augment", **START).classifier
hardened = rivals.harden(
    "mnist5k", ball, method="fgsm", start="nfgsm", step_size=1.0, out=runs / "gradient", **START
).classifier

models = {"plain images": plain, "noise": noise_trained, "augmentation": augment_trained, "N-FGSM": hardened}
table = torch.tensor([[accuracy(model, attack(model)) for attack in ATTACKS.values()] for model in models.values()])
_, axis = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
axis.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto")
for (row, column), value in zip(torch.cartesian_prod(torch.arange(4), torch.arange(5)), table.flatten(), strict=True):
    axis.text(column, row, f"{value:.0%}", ha="center", va="center", color="black" if value > 0.5 else "white")
axis.set_xticks(range(5), ATTACKS)
axis.set_yticks(range(4), models)
axis.set(xlabel="attack", ylabel="trained on", title=f"accuracy on 500 test images, eps {EPS}")
plt.show()

# %% [markdown]
# 按列来看。噪声对哪个模型都无害，用噪声训练也几乎不能提高其他方面的鲁棒性。用增强图像训练，只对数据增强有效。
# 要抵抗梯度攻击，只有用梯度攻击来训练才有效：其他图像没有覆盖真正危险的方向。
#
# 干净准确率的代价很小。
#
# ## 对抗训练前后，各个 eps

# %%
CURVE = (0.05, 0.1, 0.15)
before = rivals.evaluate(plain, "mnist5k", ball, attack="pgd(steps=20)", curve=CURVE, n=200, quiet=True)
after = rivals.evaluate(hardened, "mnist5k", ball, attack="pgd(steps=20)", curve=CURVE, n=200, quiet=True)
_, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
for report, color, label in ((before, RED, "plain"), (after, BLUE, "adversarially trained")):
    radii = [eps for eps, _ in report.curve]
    low, high = zip(*(share.interval for _, share in report.curve), strict=True)
    axis.fill_between(radii, low, high, color=color, alpha=0.2, linewidth=0)
    axis.plot(radii, [share.value for _, share in report.curve], "o-", color=color, label=label)
axis.set(xlabel="eps (pixels in [0, 1])", ylabel="robust accuracy", ylim=(0, 1))
axis.legend()
axis.grid(alpha=0.2)
plt.show()
print(f"at eps {EPS}: plain {before.robust}, hardened {after.robust}")
print("hardened:", after.verdict)

# %% [markdown]
# 图中的色带是 95 % 置信区间；只有 200 张图像，区间较宽。
#
# ## 输入梯度
#
# 损失对像素的梯度显示预测依赖于哪些像素。普通网络的梯度很分散，有的落在数字之外；对抗训练后的网络，梯度沿着笔画：
# 要改变预测，就得改变数字本身。


# %%
def input_gradients(model, images, labels):
    """The gradient of the loss with respect to the images, each scaled to [-1, 1]."""
    images = images.clone().requires_grad_()
    (gradients,) = torch.autograd.grad(cross_entropy(model(images), labels, reduction="sum"), images)
    return gradients / gradients.abs().amax((1, 2, 3), keepdim=True)


some, labels = x[::61][:8], y[::61][:8]
_, axes = plt.subplots(3, 8, figsize=(10, 4.2), layout="constrained")
rows = {
    "image": some,
    "plain": input_gradients(plain, some, labels),
    "hardened": input_gradients(hardened, some, labels),
}
for row, (title, images) in zip(axes, rows.items(), strict=True):
    for axis, image in zip(row, images, strict=True):
        scale = {"cmap": "gray", "vmin": 0} if title == "image" else {"cmap": "PuOr", "vmin": -1}
        axis.imshow(image[0], vmax=1, **scale)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(title)
plt.show()

# %% [markdown]
# ## 下一步
#
# - 更强的训练：`rivals harden mnist --eps 0.3 --method pgd --until "20 epochs"`。全部方法和监控内容见
#   [对抗训练](../../docs/hardening.md)（英文）。
# - 鲁棒准确率是否可信，取决于所用的攻击：见第 5 个笔记本。
# - 另一场双网络博弈，用来生成图像：见第 2 个笔记本。
