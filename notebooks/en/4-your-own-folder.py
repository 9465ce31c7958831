# %% [markdown]
# # 4. Train on your own folder
#
# All you need is a folder of images. Subfolders, if there are any, are classes. This notebook makes such a folder,
# deals with the usual problems, trains a generator, and checks whether it generates or memorizes.
#
# Replace `photos` by your own folder and go on from there. It takes about a minute on one core.

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
# ## A folder to practice on
#
# scikit-learn ships with two photographs, of a flower and of a temple in China. We crop 400 patches of different sizes
# from each at random positions and save them as typical image files: JPEG, wider than high.

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
# ## What gets in the way
#
# The networks need square images of one size. Rivals does not guess how to get there: it says in one line what to
# choose.

# %%
try:
    rivals.load_images(photos)
except rivals.UserError as error:
    print(str(error).replace(str(home), ""))

# %% [markdown]
# `crop=True` takes the center square, `size` sets the side in pixels. Another common problem is a file that is not an
# image.

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
# ## Train
#
# - `recipe="mlp"`: fully connected networks, which get furthest on small images in a minute.
# - `conditional=True` conditions both networks on the class, so that you can ask for flowers later.
# - `hold_out=100` keeps some images out of training, for evaluation.
#
# The command line uses the same names: `rivals train photos --crop --size 16 --recipe mlp ...`.

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
# A sample grid was generated from the same latents throughout training. Here is its progress.

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
# ## Generate
#
# The trained generator is a plain PyTorch module. Select a class by its index; the same seed always gives the same
# images.

# %%
generator = rivals.load(run.folder)
print("classes:", dict(enumerate(images.classes)))
generated = torch.cat([generator.sample(20, seed=1, labels=label) for label in (0, 1)])
save_folder(generated.numpy(), home / "generated")
print("files:", *sorted(path.name for path in (home / "generated").iterdir())[:3], "...")
make_grid(generated.numpy(), columns=10, scale=3)

# %% [markdown]
# Blurred, as expected after a minute of fully connected layers: but petals on dark leaves are clearly different from a
# pale sky and brown walls.
#
# ## Generated or memorized?
#
# With so few images one has to ask. Below each generated image is its nearest training image. If the two were the same,
# the generator would be a slow way to copy files.

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
# ## Continue
#
# A run can be extended at any time and continues exactly as if it had never stopped.

# %%
longer = rivals.train(resume=True, out=run.folder, until="72k images", quiet=True)
print("images seen:", longer.info["images"])
print("in the run folder:", *sorted(path.name for path in longer.folder.iterdir()))

# %% [markdown]
# `report.html` in that folder shows everything on one page; open it in a browser, also while the run is in progress.
#
# Larger images need convolutional networks and more time: `rivals train photos --crop --size 64 --until "30 minutes"`.
# If the discriminator memorizes a few hundred images, add `--augment diff` (DiffAugment, Zhao et al. 2020).
# [Training](../../docs/training.md) lists the recipes and settings, [Data](../../docs/data.md) explains how folders and
# zip files are read, and [Scores](../../docs/metrics.md) how to measure the results.
