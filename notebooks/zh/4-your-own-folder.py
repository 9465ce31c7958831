# %% [markdown]
# # 4. 用你自己的文件夹训练
#
# 只需要一个装着图片的文件夹；如果有子文件夹，每个子文件夹就是一个类别。这个笔记本造出这样一个文件夹，遇到常见的麻烦，
# 在上面训练一个生成器，再看看它是在画，还是只是记住了。
#
# 把 `photos` 换成你自己的文件夹，接着往下做即可。大约需要一个处理器核心运行一分钟。

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import rivals
from rivals.reports.sheet import grid, save_folder

home = Path(tempfile.mkdtemp())
photos = home / "photos"

# %% [markdown]
# ## 造一个练习用的文件夹
#
# scikit-learn 自带两张照片：一朵花，一座中国的寺庙。我们从每张照片的随机位置剪下 400 块大小不一的图，
# 像普通照片那样保存：JPEG 文件，宽大于高。

# %%
rng = np.random.default_rng(0)
for name in ("flower", "china"):
    photograph = Image.fromarray(load_sample_image(f"{name}.jpg"))
    (photos / name).mkdir(parents=True)
    for number in range(400):
        height = int(rng.integers(120, 200))
        width = height * 4 // 3
        left, top = rng.integers(photograph.width - width), rng.integers(photograph.height - height)
        piece = photograph.crop((left, top, left + width, top + height)).resize((128, 96))
        piece.save(photos / name / f"{number:03d}.jpg", quality=95)
print(*sorted(path.relative_to(home).as_posix() for path in photos.rglob("*.jpg"))[:3], "...")

# %% [markdown]
# ## 拦路的东西
#
# 这里的网络要的是大小一致的正方形图片。Rivals 不会擅自猜测该怎么办，而是用一行话来问你。

# %%
try:
    rivals.load_images(photos)
except rivals.UserError as error:
    print(str(error).replace(str(home), ""))

# %% [markdown]
# `crop=True` 取中间的正方形，`size` 是边长（像素）。另一位常客是根本不是图片的文件。

# %%
(photos / "china" / "broken.jpg").write_bytes(b"this is no picture")
try:
    rivals.load_images(photos, crop=True, size=16)
except rivals.UserError as error:
    print(str(error).replace(str(home), ""))

images = rivals.load_images(photos, crop=True, size=16, skip_bad=True, on_note=lambda note: None)
print("images", images.images.shape, "classes", images.classes)
grid(images.images[rng.permutation(len(images))[:40]], columns=10, scale=3)

# %% [markdown]
# ## 训练
#
# - `recipe="mlp"`：全连接网络，对小图来说，一分钟之内它走得最远。
# - `conditional=True` 把类别告诉两个网络，这样以后可以点名要花。
# - `hold_out=100` 留出一些图片，两个网络都不学，用来评判。
#
# 命令行用的是同样的词：`rivals train photos --crop --size 16 --recipe mlp ...`。

# %%
FOLDER = {"crop": True, "size": 16, "skip_bad": True}
run = rivals.train(
    str(photos),
    **FOLDER,
    recipe="mlp",
    conditional=True,
    hold_out=100,
    until="70k images",
    seed=0,
    out=home / "run",
    quiet=True,
)
print("state:", run.about["state"], "- alarms at the end:", ", ".join(run.result()["alarms"]) or "none")
by_heart = [record["equilibrium/r_v"] for record in run.records() if "equilibrium/r_v" in record][-1]
print(f"how far the discriminator knows its pictures by heart: {by_heart:.2f} (0 or less: not at all; 1: wholly)")

# %% [markdown]
# 训练中反复用同样的隐向量画样本图。看看它一路的变化。

# %%
kept = [record for record in run.records() if "sheet" in record]
_, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for axis, share in zip(axes, (0.05, 0.25, 0.5, 1), strict=True):
    record = kept[round(share * (len(kept) - 1))]
    axis.imshow(Image.open(run.folder / record["sheet"]))
    axis.set_title(f"after {record['images']:,} images")
    axis.axis("off")
plt.show()

# %% [markdown]
# ## 画图
#
# 训练好的生成器是一个普通的 PyTorch 模块。用编号指定类别；同样的种子，任何时候都画出同样的图。

# %%
generator = rivals.load(run.folder)
print("classes:", dict(enumerate(images.classes)))
drawn = torch.cat([generator.sample(20, seed=1, labels=label) for label in (0, 1)])
save_folder(drawn.numpy(), home / "drawn")
print("files:", *sorted(path.name for path in (home / "drawn").iterdir())[:3], "...")
grid(drawn.numpy(), columns=10, scale=3)

# %% [markdown]
# 图是模糊的，全连接层训练一分钟也只能如此；但看得出深色叶子前的花瓣，以及浅色的天空和褐色的墙。
#
# ## 是画的，还是背的？
#
# 图片这么少，必须问这个问题。每张画出的图下面，是训练图片中离它最近的一张。如果两张一模一样，
# 生成器就只是一种很慢的复制文件的办法。

# %%
some = drawn[::4]  # ten of them
points, real = some.flatten(1).float(), torch.from_numpy(images.images).flatten(1).float()
distance = torch.cdist(points, real) / real.shape[1] ** 0.5  # in grey levels from 0 to 255
nearest = distance.argmin(1)
among_real = (torch.cdist(real[:200], real) / real.shape[1] ** 0.5).kthvalue(2, dim=1).values
print(f"from a drawn picture to the nearest real one: {distance.amin(1).mean():.0f} grey levels")
print(f"from a real picture to the nearest other one: {among_real.mean():.0f} grey levels")
grid(np.concatenate([some.numpy(), images.images[nearest.numpy()]]), columns=10, scale=3)

# %% [markdown]
# ## 继续训练
#
# 任何时候都可以延长一次训练，它会像从未停过一样精确地接着进行。

# %%
longer = rivals.train(resume=True, out=run.folder, until="72k images", quiet=True)
print("images seen:", longer.about["images"])
print("in its folder:", *sorted(path.name for path in longer.folder.iterdir()))

# %% [markdown]
# 文件夹里的 `report.html` 把一切放在一页上：用浏览器打开即可，训练进行中也可以看。
#
# 更大的图需要懂得“相邻”的网络和更多时间：`rivals train photos --crop --size 64 --until "30 minutes"`。
# 如果判别器把几百张图背了下来，就加上 `--augment diff`（DiffAugment，Zhao 等，2020）。
# [训练](../../docs/training.md)一页讲配方和设置，[数据](../../docs/data.md)一页讲文件夹和 zip 怎样读取，
# [评分](../../docs/metrics.md)一页讲怎样度量你所看到的（均为英文）。
