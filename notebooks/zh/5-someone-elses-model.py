# %% [markdown]
# # 5. 攻击别人的模型
#
# 你拿到了一个模型。它有多稳健？这个数字能信吗？这里的“别人”是我们自己训练的一个普通 PyTorch 模块，这样就不必下载；
# 后面的做法对任何模型都一样。
#
# 大约需要一个处理器核心运行半分钟。

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
# ## 别人的模型
#
# 它的作者像许多人一样，在模型外面做归一化：输入要先减去均值，再除以标准差。它对 Rivals 一无所知。

# %%
MEAN, STD = 0.13, 0.31


class Stranger(nn.Module):
    """Normalised images (n, 1, 28, 28) to logits (n, 10)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 5 * 5, 64), nn.ReLU(), nn.Linear(64, 10)),
        )

    def forward(self, normalised):
        return self.body(normalised)


torch.manual_seed(0)
stranger = Stranger()
data = rivals.load_images("mnist5k")
images, labels = torch.from_numpy(data.images) / 255, torch.from_numpy(data.labels)
adam = torch.optim.Adam(stranger.parameters(), lr=2e-3)
for _epoch in range(5):
    for batch in torch.randperm(len(images)).split(64):
        loss = cross_entropy(stranger((images[batch] - MEAN) / STD), labels[batch])
        adam.zero_grad()
        loss.backward()
        adam.step()
stranger.eval()
print(f"loss of the last batch: {loss.item():.3f} nats")

# %% [markdown]
# ## 把归一化放到里面
#
# 攻击必须在 0 到 1 的原始图像上进行。只有这样，eps 才名副其实，“仍是一张图像”才等于“在 0 和 1 之间”。
# 所以把均值和标准差告诉 `evaluate`，它会替你把模型包好。
#
# 如果忘了呢？模型照样运行，只是得到的数字说的是另一回事。

# %%
forgot = rivals.evaluate(stranger, "mnist5k", Linf(0.1), attack="fgsm", n=200, alarms=False, quiet=True)
told = rivals.evaluate(
    stranger, "mnist5k", Linf(0.1), attack="fgsm", n=200, mean=[MEAN], std=[STD], alarms=False, quiet=True
)
print("forgotten: clean", forgot.clean)
print("told:      clean", told.clean)

# %% [markdown]
# 如果干净准确率和作者宣称的不一样，先停下来检查归一化，再检查通道的顺序和类别的顺序。
#
# ## 一次正式的评测
#
# **AutoAttack** 是通行标准：几种攻击依次进行，每一种只面对还站着的图像。你给出模型、数据、一个球和图像张数。
# 顺便测更小的半径（`curve`）几乎不花时间：在小球里倒下的图像，在大球里也已经倒下。
#
# `autoattack-swift` 是它的轻快版，计算量约为八分之一；要发表、要与别人比较的数字，请用论文中的 `autoattack`。

# %%
report = rivals.evaluate(
    stranger,
    "mnist5k",
    Linf(0.1),
    attack="autoattack-swift",
    curve=(0.02, 0.04, 0.06, 0.08),
    n=100,
    mean=[MEAN],
    std=[STD],
    out=runs / "stranger",
    quiet=True,
)
print("clean          ", report.clean)
print("robust         ", report.robust)
print("  in 8 bits    ", report.rounded)
print("verdict        ", report.verdict)

# %% [markdown]
# ## 读懂报告
#
# - **robust**：分类正确、而且没有被任何攻击击倒的比例。括号里是 95 % 区间：只有 100 张图像时，它很宽。
# - **in 8 bits**：有些对抗图像离边界太近，存成普通图片就失效了。
# - **verdict**：有没有迹象表明是*攻击*失灵了，而不是模型站住了。
#
# 攻击的每个部分说明自己的贡献，每个类别说明自己的处境：

# %%
for name, part in report.parts.items():
    print(f"{name:12} felled {part.felled:3} of {part.attacked:3}, {part.backwards:6,} images passed backward")

_, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
radii = [eps for eps, _ in report.curve]
low, high = zip(*(share.interval for _, share in report.curve), strict=True)
left.fill_between(radii, low, high, color=BLUE, alpha=0.2, linewidth=0)
left.plot(radii, [share.value for _, share in report.curve], "o-", color=BLUE)
left.set(xlabel="eps, share of the range from black to white", ylabel="share that stands", ylim=(0, 1))
right.bar([each.name for each in report.classes], [each.robust.value for each in report.classes], color=BLUE)
right.set(xlabel="class", ylabel=f"share that stands, eps {radii[-1]}", ylim=(0, 1))
for axis in (left, right):
    axis.grid(alpha=0.2)
plt.show()

# %% [markdown]
# 训练文件夹里有一个网页 `report.html`，还有倒下的图像。这里是其中几张，改动前后：

# %%
felled = np.load(runs / "stranger" / "adversarial.npz")
test = rivals.load_images("mnist5k", split="test")
_, axes = plt.subplots(2, 8, figsize=(10, 3), layout="constrained")
for column in range(8):
    number = len(felled["eps"]) * column // 8
    original = test.images[felled["index"][number]][0]
    for axis, image in ((axes[0, column], original), (axes[1, column], felled["x_adv"][number][0])):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        axis.set(xticks=[], yticks=[])
    axes[0, column].set_title(f"a {felled['label'][number]}")
    axes[1, column].set_title(f"'{felled['said'][number]}' at {felled['eps'][number]:.2f}", color=RED)
plt.show()

# %% [markdown]
# ## 不成其为防御的防御
#
# 作者带着一个“防御”回来了：图像在进入网络之前先舍入成五级灰度，这样微小的改动就消失了。用 PGD 来攻击，
# 半径是前面的两倍，它看上去棒极了。


# %%
class Rounded(nn.Module):
    """Images in [0, 1], rounded to five greys, then normalised and handed to the stranger."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def grey(self, x):
        return (x * 4).round() / 4

    def forward(self, x):
        return self.model((self.grey(x) - MEAN) / STD)


defended = Rounded(stranger).eval()
ball = Linf(0.2)
x, y = torch.from_numpy(test.images[::5]) / 255, torch.from_numpy(test.labels[::5])
x_adv = rivals.attacks.pgd(defended, x, y, ball, steps=40, seed=0)
with torch.no_grad():
    naive = (defended(x_adv).argmax(1) == y).float().mean().item()
print(f"{naive:.0%} of {len(x)} images stand, or so it seems")

# %% [markdown]
# `evaluate` 不会轻信这样的数字。攻击之前，它先查看有没有迹象表明攻击本身会失灵。

# %%
judged = rivals.evaluate(defended, "mnist5k", ball, attack="pgd(steps=40)", n=100, quiet=True)
for alarm in judged.alarms:
    print(f"alarm {alarm['alarm']}: {alarm['says']}\n  {alarm['remedy']}")
for note in judged.notes:
    print("note:", note)
print("robust", judged.robust, "- felled by", ", ".join(judged.parts))

# %% [markdown]
# 舍入几乎处处是平的：梯度为零，跟着梯度走的攻击原地不动。图像并不难骗，只是路被藏了起来。这叫**梯度掩蔽**（Athalye
# 等，2018）。所以 `evaluate` 改用了 **Square**：它只要回答，从不要梯度。
#
# 还有第二条路：**穿过去**。舍入藏起了梯度，那就在反向传播时假装它不存在。你自己的攻击就是一个函数；它造出的图像，由
# `evaluate`用原来的模型来评判。


# %%
class SeenThrough(Rounded):
    """The same answers; backward, the rounding counts as the identity (BPDA, Athalye et al. 2018)."""

    def grey(self, x):
        return x + (super().grey(x) - x).detach()


guide = SeenThrough(stranger).eval()


def through(model, x, y, ball, *, seed, batch_size, targets):
    """PGD on the model that lets gradients pass; `evaluate` judges its images by the model that was given."""
    return rivals.attacks.pgd(guide, x, y, ball, steps=40, restarts=2, seed=seed, batch_size=batch_size)


through_it = rivals.evaluate(defended, "mnist5k", ball, attack=through, n=100, alarms=False, quiet=True)
print("robust", through_it.robust, "against PGD that sees through")

_, axis = plt.subplots(figsize=(7, 2.2), layout="constrained")
found = {"PGD, taken on trust": naive, "Square": judged.robust.value, "PGD, seeing through": through_it.robust.value}
axis.barh(list(found), list(found.values()), color=[RED, BLUE, BLUE])
axis.set(xlabel=f"share that stands at eps {ball.eps}", xlim=(0, 1))
axis.invert_yaxis()
axis.grid(alpha=0.2, axis="x")
plt.show()

# %% [markdown]
# 这个防御从来就不存在。稳健准确率是一个上界：它只说明*你的*攻击中最好的那个没能击倒多少。所以，先看结论（verdict），
# 再看数字。
#
# ## 其他模型
#
# - `rivals attack torchvision:resnet50 my-photos/ --eps 4/255 -n 500` 会取来模型、权重和它的归一化。
# - `rivals attack timm:vit_tiny_patch16_224 my-photos/ --eps 1/255`，前提是装了 timm。
# - 想知道什么是*被证明*的，而不只是尚未攻破的：[认证](../../docs/certification.md)（英文）。
# - 全部攻击和警报：[攻击](../../docs/attacks.md)（英文）。
