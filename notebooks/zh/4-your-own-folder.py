# %% [markdown]
# # 4. 用你自己的文件夹训练
#
# 只需要一个装有图像的文件夹；如果有子文件夹，每个子文件夹就是一个类别。这个笔记本先造出这样一个文件夹，处理常见的问题，
# 训练一个生成器，再检查它是在生成，还是只是记住了训练图像。
#
# 把 `photos` 换成你自己的文件夹，接着往下做即可。单核运行约一分钟。

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import rivals
from rivals.reports.image_grid import make_grid, save_folder

home = Path(tempfile.mkdtemp())
photos = home / "photos"

# %% [markdown]
# ## 练习用的文件夹
#
# scikit-learn 自带两张照片：一朵花和一座中国的寺庙。我们从每张照片的随机位置裁剪 400 块大小不一的图像，
# 像普通照片那样保存：JPEG 格式，宽大于高。

# %%
rng = np.random.default_rng(0)
for name in ("flower", "china"):
    photograph = Image.fromarray(load_sample_image(f"{name}.jpg"))
    (photos / name).mkdir(parents=True)
    for number in range(400):
        height = int(rng.integers(120, 200))
        width = height * 4 // 3
        left, top = rng.integers(photograph.width - width), rng.integers(photograph.height - height)
        patch = photograph.crop((left, top, left + width, top + height)).resize((128, 96))
        patch.save(photos / name / f"{number:03d}.jpg", quality=95)
print(*sorted(path.relative_to(home).as_posix() for path in photos.rglob("*.jpg"))[:3], "...")

# %% [markdown]
# ## 常见的问题
#
# 网络需要大小一致的正方形图像。Rivals 不会猜测该怎么处理，而是用一行信息告诉你有哪些选择。

# %%
try:
    rivals.load_images(photos)
except rivals.UserError as error:
    print(str(error).replace(str(home), ""))

# %% [markdown]
# `crop=True` 取中间的正方形，`size` 是边长（像素）。另一个常见问题是文件根本不是图像。

# %%
(photos / "china" / "broken.jpg").write_bytes(b"this is not an image")
try:
    rivals.load_images(photos, crop=True, size=16)
except rivals.UserError as error:
    print(str(error).replace(str(home), ""))

images = rivals.load_images(photos, crop=True, size=16, skip_bad=True, on_note=lambda note: None)
print("images", images.images.shape, "classes", images.classes)
make_grid(images.images[rng.permutation(len(images))[:40]], columns=10, scale=3)

# %% [markdown]
# ## 训练
#
# - `recipe="mlp"`：全连接网络，对小图像来说，一分钟之内它的效果最好。
# - `conditional=True`：两个网络都以类别为条件，这样以后可以指定生成花。
# - `hold_out=100`：留出一些图像不参与训练，用于评估。
#
# 命令行使用同样的名称：`rivals train photos --crop --size 16 --recipe mlp ...`。

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
print("state:", run.info["state"], "- alarms at the end:", ", ".join(run.result()["alarms"]) or "none")
r_v = [record["equilibrium/r_v"] for record in run.records() if "equilibrium/r_v" in record][-1]
print(f"overfitting of the discriminator, r_v: {r_v:.2f} (0 or less: none; 1: complete)")

# %% [markdown]
# 训练中始终用同样的隐向量生成样本网格。下面是它的变化。

# %%
records = [record for record in run.records() if "sample_grid" in record]
_, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for axis, progress in zip(axes, (0.05, 0.25, 0.5, 1), strict=True):
    record = records[round(progress * (len(records) - 1))]
    axis.imshow(Image.open(run.folder / record["sample_grid"]))
    axis.set_title(f"after {record['images']:,} images")
    axis.axis("off")
plt.show()

# %% [markdown]
# ## 生成
#
# 训练好的生成器是一个普通的 PyTorch 模块。用编号指定类别；同样的种子总是生成同样的图像。

# %%
generator = rivals.load(run.folder)
print("classes:", dict(enumerate(images.classes)))
generated = torch.cat([generator.sample(20, seed=1, labels=label) for label in (0, 1)])
save_folder(generated.numpy(), home / "generated")
print("files:", *sorted(path.name for path in (home / "generated").iterdir())[:3], "...")
make_grid(generated.numpy(), columns=10, scale=3)

# %% [markdown]
# 图像是模糊的，全连接层训练一分钟也只能如此；但看得出深色叶子上的花瓣，以及浅色的天空和褐色的墙。
#
# ## 是生成，还是记忆？
#
# 图像这么少，必须问这个问题。每张生成图像下面，是离它最近的训练图像。如果两者一模一样，
# 生成器就只是一种很慢的复制文件的办法。

# %%
some = generated[::4]  # ten of them
fake, real = some.flatten(1).float(), torch.from_numpy(images.images).flatten(1).float()
distance = torch.cdist(fake, real) / real.shape[1] ** 0.5  # RMS over pixels, in gray levels (0 to 255)
nearest = distance.argmin(1)
# The nearest real image to a real one is itself, so take the second.
among_real = (torch.cdist(real[:200], real) / real.shape[1] ** 0.5).kthvalue(2, dim=1).values
print(f"from a generated image to the nearest real one: {distance.amin(1).mean():.0f} gray levels")
print(f"from a real image to the nearest other real one: {among_real.mean():.0f} gray levels")
make_grid(np.concatenate([some.numpy(), images.images[nearest.numpy()]]), columns=10, scale=3)

# %% [markdown]
# ## 继续训练
#
# 训练随时可以延长，会像从未停过一样精确地接着进行。

# %%
longer = rivals.train(resume=True, out=run.folder, until="72k images", quiet=True)
print("images seen:", longer.info["images"])
print("in the run folder:", *sorted(path.name for path in longer.folder.iterdir()))

# %% [markdown]
# 文件夹里的 `report.html` 把所有内容放在一页上：用浏览器打开即可，训练进行中也可以看。
#
# 更大的图像需要卷积网络和更多时间：`rivals train photos --crop --size 64 --until "30 minutes"`。
# 如果判别器记住了几百张训练图像，就加上 `--augment diff`（DiffAugment，Zhao 等，2020）。
# [训练](../../docs/training.md)一页介绍配方和设置，[数据](../../docs/data.md)一页介绍怎样读取文件夹和 zip 文件，
# [评分](../../docs/metrics.md)一页介绍怎样度量结果（均为英文）。
