# %% [markdown]
# # 4. Train on your own folder
#
# A folder of pictures is all that is needed. Sub-folders, if there are any, are classes. This notebook makes such a
# folder, meets the usual difficulties, trains a generator on it, and looks at whether that drew or only remembered.
#
# Put your own folder in the place of `photos` and go on from there. It takes about a minute of one processor core.

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
# ## A folder to practise on
#
# The package scikit-learn comes with two photographs, of a flower and of a temple in China. We cut 400 pieces out of
# each, at random places and of different sizes, and save them as anyone's pictures are saved: as JPEG files, wider
# than high.

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
# ## What is in the way
#
# Networks here want square pictures of one size. Rivals does not guess how to make them so: it asks, in one line.

# %%
try:
    rivals.load_images(photos)
except rivals.UserError as error:
    print(str(error).replace(str(home), ""))

# %% [markdown]
# `crop=True` takes the square in the middle, `size` the side in pixels. Another usual guest is a file that is no
# picture.

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
# ## Train
#
# - `recipe="mlp"`: fully connected networks, which on small pictures come farthest in a minute.
# - `conditional=True` tells both networks the class, so that one can ask for flowers later.
# - `hold_out=100` keeps some pictures from both networks, to judge by.
#
# The command line has the same words: `rivals train photos --crop --size 16 --recipe mlp ...`.

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
# A sheet of the same latents was drawn again and again. Here is how it came along.

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
# ## Draw
#
# The finished generator is a plain PyTorch module. Ask for a class by its number; the same seed gives the same
# pictures, on any day.

# %%
generator = rivals.load(run.folder)
print("classes:", dict(enumerate(images.classes)))
drawn = torch.cat([generator.sample(20, seed=1, labels=label) for label in (0, 1)])
save_folder(drawn.numpy(), home / "drawn")
print("files:", *sorted(path.name for path in (home / "drawn").iterdir())[:3], "...")
grid(drawn.numpy(), columns=10, scale=3)

# %% [markdown]
# Blurred, as a minute of fully connected layers is: but one can tell petals before dark leaves from a pale sky and
# brown walls.
#
# ## Drawn, or remembered?
#
# With so few pictures one must ask. Below each drawn picture stands the nearest one that it was trained on. If the two
# were the same, the generator would be a slow way to copy files.

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
# ## Go on
#
# A run can be made longer at any time, and continues exactly as if it had never stopped.

# %%
longer = rivals.train(resume=True, out=run.folder, until="72k images", quiet=True)
print("images seen:", longer.about["images"])
print("in its folder:", *sorted(path.name for path in longer.folder.iterdir()))

# %% [markdown]
# `report.html` in that folder shows everything on one page: open it in a browser, also while a run is going on.
#
# Larger pictures want networks that know about neighbours, and more time: `rivals train photos --crop --size 64
# --until "30 minutes"`. If the discriminator learns a few hundred pictures by heart, add `--augment diff`
# (DiffAugment, Zhao et al. 2020). [Training](../../docs/training.md) has the recipes and settings,
# [Data](../../docs/data.md) says how folders and zips are read, and [Scores](../../docs/metrics.md) how to measure
# what you see.
