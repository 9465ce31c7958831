# %% [markdown]
# # 6. 同一个博弈，五个玩家
#
# GAN 是两个网络轮流学习的博弈。把别的网络放进同一个博弈，它就成了攻击、防御，或者对抗训练：
#
# | 博弈 | 谁在学习 | 谁保持不变 |
# |---|---|---|
# | GAN | 生成器、判别器 | |
# | 对抗训练 | 分类器 | 攻击，每个批次重新求解 |
# | AdvGAN | 扰动的生成器、判别器 | 分类器 |
# | GAN 反演 | 编码器 | 生成器 |
# | 与生成器的对抗训练 | 分类器、扰动的生成器 | |
#
# 它们用的都是同一个循环。这本笔记玩其中的四个，每次都问：**谁赢了？是真的吗？**
#
# 分类器是仓库里保存的小模型之一，图像是随软件包附带的 5,000 个数字。单核运行不到四分钟。

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import rivals
from rivals import Linf
from rivals.attacks import noise, pgd
from rivals.defenses import DefenseGAN, GANInversion

BLUE, RED, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
models = Path(rivals.__file__).parents[2] / "benchmarks" / "models"  # of a checkout
runs = Path(tempfile.mkdtemp())
ball = Linf(0.3)

test = rivals.load_images("mnist5k", split="test")
x = torch.from_numpy(test.images) / 255  # (500, 1, 28, 28), from 0 (black) to 1 (white)
y = torch.from_numpy(test.labels)  # (500,)
plain = rivals.load(models / "mnist-plain.safetensors")


@torch.no_grad()
def accuracy(model, images):
    """The share of the test set that is classified correctly."""
    return (model(images).argmax(1) == y).float().mean().item()


def show(rows, titles, columns=10):
    """Rows of images (n, 1, 28, 28) in [0, 1], each with a title."""
    _, axes = plt.subplots(len(rows), columns, figsize=(10, 1.1 * len(rows)), layout="constrained")
    for images, title, line in zip(rows, titles, axes, strict=True):
        for image, axis in zip(images, line, strict=False):
            axis.imshow(image[0].detach(), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
    plt.show()


print(f"accuracy {accuracy(plain, x):.1%}")

# %% [markdown]
# 这并不能证明模型有多好：它是用整个 MNIST 训练的，而这些数字就来自那里。这里要看的是攻击之后还剩多少准确率。
#
# ## 会攻击的生成器
#
# **AdvGAN**（Xiao 等，2018）训练一个生成器，把图像变成对抗样本。它有两个对手：一个不学习的分类器，和一个区分扰动图像与
# 干净图像的判别器：
#
# $$L = L_{\text{fool}} + \alpha L_{\text{GAN}} + \beta L_{\text{hinge}}$$
#
# 第一项是正确类别相对于其他最佳类别的间隔，最后一项让扰动保持较小。扰动球由构造本身保证：扰动就是
# $\varepsilon \tanh(h)$。和 PGD 一样，生成器知道图像的标签，它要把图像带离这个类别。

# %%
advgan = rivals.train(
    "mnist5k",
    against=str(models / "mnist-plain.safetensors"),
    eps="0.3",
    until="24k images",
    out=runs / "advgan",
    device="cpu",
    quiet=True,
)
generator = advgan.generator
with torch.no_grad():
    fooling = generator(x, y)
assert ball.contains(fooling, x).all()

points = [(r["images"], r["accuracy/generator"]) for r in advgan.records() if "accuracy/generator" in r]
_, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
axis.plot(*zip(*points, strict=True), "o-", color=RED)
axis.set(
    xlabel="images seen", ylabel="accuracy, held out", ylim=(-0.03, 1.03), title="The classifier under the generator"
)
axis.grid(alpha=0.2)
plt.show()
print(f"test accuracy under the generator {accuracy(plain, fooling):.1%}")

# %%
with torch.no_grad():
    predicted = plain(fooling).argmax(1)
show([x[::50], 0.5 + (fooling - x)[::50], fooling[::50]], ["image", "perturbation", "sum"])
print("labels     ", " ".join(map(str, y[::50].tolist())))
print("predictions", " ".join(map(str, predicted[::50].tolist())))

# %% [markdown]
# ## 与 PGD 比较
#
# PGD 对每张图像要向分类器求 40 次梯度。生成器什么都不问：它的扰动只是一个小网络的一次前向传播。强度上要付出什么代价？
# 第二个分类器是用 PGD 样本训练的，它会给出答案。

# %%
hard = rivals.load(models / "mnist-hard.safetensors")
attacks = {
    "noise": lambda model: noise(model, x, y, ball, seed=0),
    "generator": lambda model: fooling,
    "PGD-40": lambda model: pgd(model, x, y, ball, steps=40, seed=0),
}
under = {
    name: {"clean": accuracy(model, x)} | {attack: accuracy(model, make(model)) for attack, make in attacks.items()}
    for name, model in (("plain", plain), ("trained on PGD", hard))
}


def bars(groups, colors):
    """Grouped bars: a dictionary of values for each of some names."""
    _, axis = plt.subplots(figsize=(8, 2.9), layout="constrained")
    kinds = list(next(iter(groups.values())))
    width = 0.8 / len(kinds)
    for place, (kind, color) in enumerate(zip(kinds, colors, strict=False)):
        left = [group + (place - (len(kinds) - 1) / 2) * width for group in range(len(groups))]
        drawn = axis.bar(left, [each[kind] for each in groups.values()], width * 0.92, color=color, label=kind)
        axis.bar_label(drawn, fmt=lambda share: f"{share:.0%}", fontsize=8)
    axis.set(xticks=range(len(groups)), ylim=(0, 1.12), ylabel="accuracy")
    axis.set_xticklabels(groups)
    axis.legend(ncols=len(kinds), loc="upper center", bbox_to_anchor=(0.5, 1.22), frameon=False)
    axis.grid(alpha=0.2, axis="y")
    plt.show()


bars(under, ["#999999", ORANGE, RED, BLUE])

# %% [markdown]
# 对它训练时所针对的模型，生成器骗过了所有图像，而开销只是 PGD 的一小部分。对鲁棒的模型，它几乎不起作用，PGD 却还能
# 找到对抗样本。所以生成器是针对*某一个*模型的快速攻击，绝不是鲁棒性的度量：要度量，请报告 AutoAttack。
#
# 在评估中，生成器是攻击列表中的一项。它很便宜，所以排在最前面，剩下的再由 PGD 攻击：

# %%
report = rivals.evaluate(
    plain, "mnist5k", ball, attack=f"generator:{runs / 'advgan'},pgd", n=200, alarms=False, quiet=True
)
for name, stage in report.stages.items():
    kind = name.partition(":")[0]
    print(f"{kind:10} fooled {stage.fooled:3} of {stage.attacked:3} by {stage.backwards:5,} backward passes (images)")

# %% [markdown]
# ## 会防御的生成器
#
# 对抗样本不是数字。那么，为什么不把每张图像换成离它最近的数字呢？**Defense-GAN**（Samangouei 等，2018）用一个学会了
# 数字的 GAN，在分类器看到图像之前，先在它的潜空间里搜索：
#
# $$G(z^*), \quad z^* = \arg\min_z \lVert G(z) - x \rVert^2$$
#
# 可以训练一个**编码器** $E$，用一次前向传播完成这个搜索：$G(E(x))$。这个博弈只有一个玩家，生成器保持不变。

# %%
MLP = {"latent_dim": 32, "generator_widths": (128, 256, 512), "discriminator_widths": (512, 256)}
COMMON = {"device": "cpu", "quiet": True}
rivals.train("mnist5k", recipe="mlp", until="120k images", out=runs / "gan", **MLP, **COMMON)
rivals.train("mnist5k", invert=str(runs / "gan"), until="40k images", out=runs / "encoder", **COMMON)

gan, encoder = rivals.load(runs / "gan"), rivals.load(runs / "encoder" / "encoder.safetensors")
torch.manual_seed(0)
rows = {
    "generated": gan.sample(10, seed=0) / 255,
    "attacked": fooling[::50],
    "Defense-GAN": DefenseGAN(gan, steps=60, restarts=2)(fooling[::50]),
    "G(E(x))": GANInversion(gan, encoder)(fooling[::50]),
}
show(rows.values(), rows)

# %% [markdown]
# 返回的是这个只训练了一分钟的小生成器所能造出的图像：扰动没了，数字也丢了一大部分。这有用吗？像早期大多数防御论文那样，
# 取针对*单独的*分类器的对抗样本，再净化它们，得到的是
# **天真的**数字（naive）。诚实的攻击（honest）知道防御的存在，并穿过它：用搜索最后几步的梯度，用恒等映射代替它（BPDA，
# Athalye 等，2018），或者就在潜空间里攻击。给出 `defense=`，一次评估两者都做。

# %%
defended = {}
for name, defense in (
    ("Defense-GAN", f"defense-gan:{runs / 'gan'}(steps=60,restarts=2)"),
    ("GAN inversion", f"gan-inversion:{runs / 'encoder'}"),
):
    result = rivals.evaluate(
        plain, "mnist5k", ball, attack="pgd", defense=defense, adaptive_steps=20, n=100, alarms=False, quiet=True
    )
    defended[name] = {
        "clean": result.clean.value,
        "naive": result.naive.value,
        "honest": result.robust.value,
    }
    print(f"{name}: " + ", ".join(f"{stage} fooled {each.fooled}" for stage, each in result.stages.items()))
bars(defended, ["#999999", GREEN, RED])
print("verdict on the last:", result.verdict)

# %% [markdown]
# 按天真的数字，这种防御救回了大约三分之一的图像。一旦攻击穿过防御，它就所剩无几。干净准确率也下降了：生成器造不出的
# 数字，会被换成另一个。
#
# ## 会教学的生成器
#
# 如果分类器也学习呢？那么双方都在动：生成器寻找仍能骗过分类器的东西，分类器从中学习。这就是用学出来的攻击做对抗训练
# （`rivals harden --method gan`）：一个对抗样本只需要生成器的一次前向传播，而不是分类器的好几次。

# %%
taught = rivals.harden(
    "mnist5k", ball, method="gan", widths=(16, 32), until="12 epochs", out=runs / "taught", device="cpu", quiet=True
)
student = taught.classifier
_, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
for key, color in (("accuracy/held_out", "#999999"), ("accuracy/fgsm", ORANGE), ("accuracy/pgd", BLUE)):
    points = [(record["images"], record[key]) for record in taught.records() if key in record]
    axis.plot(
        *zip(*points, strict=True), "o-", color=color, label={"accuracy/held_out": "clean"}.get(key, key[9:].upper())
    )
axis.set(xlabel="images seen", ylabel="accuracy, held out", ylim=(-0.03, 1.03))
axis.legend()
axis.grid(alpha=0.2)
plt.show()

# %%
under["taught by a generator"] = {"clean": accuracy(student, x)} | {
    attack: accuracy(student, make(student)) for attack, make in attacks.items()
}
bars(under, ["#999999", ORANGE, RED, BLUE])

# %% [markdown]
# 这个学生经受住了另一场博弈中的生成器，尽管从未遇见过它，也经受住了大部分 FGSM。PGD 却几乎处处骗过它，而用 PGD 训练的
# 分类器守住了。只用一次前向传播的生成器，找到的比搜索少，而分类器只会对对手找得到的东西变得鲁棒，不会更多。
#
# ## 要点
#
# - 攻击、防御和老师是**同一个博弈的玩家**。区别在于谁学习、谁保持不变。
# - 学出来的攻击**快而窄**：只为一个模型而生，不能用来度量另一个模型的鲁棒性。
# - 净化器要用**穿过**它的攻击来评判。天真的数字只衡量了攻击不知道的东西。
# - 对手只能教它**找得到**的东西：训练中的攻击越强，分类器就越鲁棒。
#
# 所有博弈及其命令：[One game, five players](../../docs/one-game.md)。
