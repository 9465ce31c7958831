# %% [markdown]
# # 5. 攻击别人的模型
#
# 你拿到了一个模型。它有多鲁棒？这个数字可信吗？这里的模型是我们自己训练的一个普通 PyTorch 模块，这样就不必下载；
# 后面的做法对任何模型都一样。
#
# 单核运行约半分钟。

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import rivals
from rivals import Linf

BLUE, RED, GREEN = "#0072b2", "#d55e00", "#009e73"
runs = Path(tempfile.mkdtemp())

# %% [markdown]
# ## 模型
#
# 它的作者像许多人一样，在模型外面做归一化：输入要先减去均值，再除以标准差。它对 Rivals 一无所知。

# %%
MEAN, STD = 0.13, 0.31


class TheirModel(nn.Module):
    """Maps normalized images (n, 1, 28, 28) to logits (n, 10)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 5 * 5, 64), nn.ReLU(), nn.Linear(64, 10)),
        )

    def forward(self, normalized):
        return self.body(normalized)


torch.manual_seed(0)
model = TheirModel()
data = rivals.load_images("mnist5k")
images, labels = torch.from_numpy(data.images) / 255, torch.from_numpy(data.labels)
adam = torch.optim.Adam(model.parameters(), lr=2e-3)
for _epoch in range(5):
    for batch in torch.randperm(len(images)).split(64):
        loss = cross_entropy(model((images[batch] - MEAN) / STD), labels[batch])
        adam.zero_grad()
        loss.backward()
        adam.step()
model.eval()
print(f"loss of the last batch: {loss.item():.3f} nats")

# %% [markdown]
# ## 把归一化放到模型里面
#
# 攻击必须在 [0, 1] 的图像上进行。只有这样，eps 才名副其实，裁剪到 [0, 1] 才等于仍是有效的图像。所以把均值和标准差传给
# `evaluate`，它会替你封装模型。
#
# 如果忘了呢？模型照样运行，但得到的数字没有意义。

# %%
without = rivals.evaluate(model, "mnist5k", Linf(0.1), attack="fgsm", n=200, alarms=False, quiet=True)
normalized = rivals.evaluate(
    model, "mnist5k", Linf(0.1), attack="fgsm", n=200, mean=[MEAN], std=[STD], alarms=False, quiet=True
)
print("without normalization: clean", without.clean)
print("with normalization:    clean", normalized.clean)

# %% [markdown]
# 如果干净准确率和作者报告的不一致，先停下来检查归一化，再检查通道的顺序和类别的顺序。
#
# ## 正式的评估
#
# **AutoAttack** 是标准方法：几种攻击依次进行，每一种只攻击仍然鲁棒的图像。需要给出模型、数据、威胁模型（扰动球）和图像
# 数量。更小的半径（`curve`）开销很小：小球内的对抗样本也在大球内。
#
# `autoattack-swift` 是轻量版，计算量约为八分之一；要与别人的数字比较，请用论文中的 `autoattack`。

# %%
report = rivals.evaluate(
    model,
    "mnist5k",
    Linf(0.1),
    attack="autoattack-swift",
    curve=(0.02, 0.04, 0.06, 0.08),
    n=100,
    mean=[MEAN],
    std=[STD],
    out=runs / "attack",
    quiet=True,
)
print("clean          ", report.clean)
print("robust         ", report.robust)
print("  in 8 bits    ", report.robust_8bit)
print("verdict        ", report.verdict)

# %% [markdown]
# ## 读懂报告
#
# - **robust**：鲁棒准确率，即在所有攻击下都分类正确的比例。括号里是 95 % 置信区间；只有 100 张图像，区间较宽。
# - **in 8 bits**：有些对抗样本离决策边界太近，像图像文件那样舍入到 8 位就失效了。
# - **verdict**：有没有迹象表明是*攻击*失败了，而不是模型真的鲁棒。
#
# 报告还给出每种攻击的贡献和每个类别的鲁棒准确率：

# %%
for name, stage in report.stages.items():
    print(f"{name:12} fooled {stage.fooled:3} of {stage.attacked:3}, {stage.backwards:6,} backward passes (images)")

_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
radii = [eps for eps, _ in report.curve]
low, high = zip(*(share.interval for _, share in report.curve), strict=True)
left.fill_between(radii, low, high, color=BLUE, alpha=0.2, linewidth=0)
left.plot(radii, [share.value for _, share in report.curve], "o-", color=BLUE)
left.set(xlabel="eps (pixels in [0, 1])", ylabel="robust accuracy", ylim=(0, 1))
right.bar([each.name for each in report.classes], [each.robust.value for each in report.classes], color=BLUE)
right.set(xlabel="class", ylabel=f"robust accuracy, eps {radii[-1]}", ylim=(0, 1))
for axis in (left, right):
    axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# 运行文件夹里有 `report.html` 和对抗样本。下面是其中几张，攻击前后：

# %%
adversarial = np.load(runs / "attack" / "adversarial.npz")
test = rivals.load_images("mnist5k", split="test")
_, axes = plt.subplots(2, 8, figsize=(10, 3), layout="constrained")
for column in range(8):
    number = len(adversarial["eps"]) * column // 8
    original = test.images[adversarial["index"][number]][0]
    for axis, image in ((axes[0, column], original), (axes[1, column], adversarial["x_adv"][number][0])):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        axis.set(xticks=[], yticks=[])
    axes[0, column].set_title(f"label {adversarial['label'][number]}")
    title = f"'{adversarial['prediction'][number]}' at {adversarial['eps'][number]:.2f}"
    axes[1, column].set_title(title, color=RED)
plt.show()

# %% [markdown]
# ## 无效的防御
#
# 作者带来了一个“防御”：图像在输入网络之前先量化成五级灰度，这样微小的扰动就消失了。用 PGD 攻击，半径是前面的两倍，
# 它看上去非常好。


# %%
class Quantized(nn.Module):
    """Quantizes images in [0, 1] to five gray levels, normalizes them and applies the model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def quantize(self, x):
        return (x * 4).round() / 4

    def forward(self, x):
        return self.model((self.quantize(x) - MEAN) / STD)


defended = Quantized(model).eval()
ball = Linf(0.2)
x, y = torch.from_numpy(test.images[::5]) / 255, torch.from_numpy(test.labels[::5])
x_adv = rivals.attacks.pgd(defended, x, y, ball, steps=40, seed=0)
with torch.no_grad():
    pgd_accuracy = (defended(x_adv).argmax(1) == y).float().mean().item()
print(f"accuracy under PGD: {pgd_accuracy:.0%} of {len(x)} images")

# %% [markdown]
# `evaluate` 不会轻信这样的数字。攻击之前，它先检查有没有迹象表明攻击会因为别的原因而失败。

# %%
checked = rivals.evaluate(defended, "mnist5k", ball, attack="pgd(steps=40)", n=100, quiet=True)
for alarm in checked.alarms:
    print(f"alarm {alarm['alarm']}: {alarm['message']}\n  {alarm['remedy']}")
for note in checked.notes:
    print("note:", note)
print("robust", checked.robust, "- attacked by", ", ".join(checked.stages))

# %% [markdown]
# 量化函数几乎处处是平的：梯度为零，基于梯度的攻击无法前进。这些图像并不难攻击，只是梯度被隐藏了。这叫**梯度掩蔽**
# （Athalye 等，2018）。所以 `evaluate` 改用 **Square**：一种只需要模型输出的黑盒攻击。
#
# 还有第二种办法：近似梯度。反向传播时用恒等映射代替量化（BPDA）。自定义攻击就是一个函数；`evaluate`
# 用原来的模型来评估它生成的图像。


# %%
class StraightThrough(Quantized):
    """The same outputs; in the backward pass quantization is the identity (BPDA, Athalye et al. 2018)."""

    def quantize(self, x):
        return x + (super().quantize(x) - x).detach()


surrogate = StraightThrough(model).eval()


def bpda(model, x, y, ball, *, seed, batch_size, targets):
    """PGD with the surrogate's gradients; `evaluate` checks the images on the original model."""
    return rivals.attacks.pgd(surrogate, x, y, ball, steps=40, restarts=2, seed=seed, batch_size=batch_size)


adaptive = rivals.evaluate(defended, "mnist5k", ball, attack=bpda, n=100, alarms=False, quiet=True)
print("robust", adaptive.robust, "under PGD with BPDA")

_, axis = plt.subplots(figsize=(7, 2.2), layout="constrained")
accuracies = {"PGD": pgd_accuracy, "Square": checked.robust.value, "PGD with BPDA": adaptive.robust.value}
axis.barh(list(accuracies), list(accuracies.values()), color=[RED, BLUE, BLUE])
axis.set(xlabel=f"robust accuracy at eps {ball.eps}", xlim=(0, 1))
axis.invert_yaxis()
axis.grid(alpha=0.2, axis="x")
plt.show()

# %% [markdown]
# 这个防御从未起过作用。鲁棒准确率是一个上界：它报告的是*你的*攻击中最强的也没能骗过的比例。所以，先看结论（verdict），
# 再看数字。
#
# ## 其他模型
#
# - `rivals attack torchvision:resnet50 my-photos/ --eps 4/255 -n 500` 会取得模型、权重和它的归一化参数。
# - `rivals attack timm:vit_tiny_patch16_224 my-photos/ --eps 1/255`，前提是装了 timm。
# - 想知道什么是*被证明*的，而不只是尚未攻破的：[认证](../../docs/certification.md)（英文）。
# - 全部攻击和警报：[攻击](../../docs/attacks.md)（英文）。
