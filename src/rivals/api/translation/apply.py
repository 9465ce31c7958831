"""A trained translator on images of any size: a file, a folder or a zip."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.network_io import home_of
from rivals.api.common.resume import note_printer
from rivals.api.translation.input_image import TURNED_GRAY, read_input
from rivals.api.translation.job import translator_of
from rivals.base import devices, launcher
from rivals.base.errors import UserError
from rivals.base.files import expand_user, explain_os_errors, make_folder, whole_folder, write_atomically
from rivals.base.run_folder import Record
from rivals.base.typed_json import read_small_file

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from rivals.data.listing import Listing
    from rivals.recipes import ApplyConfig

MOST_BYTES = 1 << 31  # of a file


def apply_translator(
    run: str, images: str, config: ApplyConfig, *, out: str | Path | None, device: str, quiet: bool
) -> Record:
    """Translate each image and write it as a PNG of the same name.

    Args:
        run: A run of ``rivals translate``, or its generator.safetensors.
        images: An image file, a folder or a zip.
        config: Tiles and their overlap.
        out: The folder to write, or of a single image the file; RUN/translated-NAME by default.
        device: Where to work.
        quiet: Print no progress.

    Returns:
        Where the images are, how many, and how many of them were in color and turned gray.

    Raises:
        UserError: the run holds no translator, an image cannot be read or does not fit it, or what is to be written
            exists. Nothing is written then.
    """
    from rivals.console.bars import PassProgress
    from rivals.data.load import note_left_out, source_name
    from rivals.data.pixel_modes import Peak
    from rivals.nets.tiles import translate_in_tiles

    if launcher.environment_size() > 1:
        raise UserError(
            f"a translator is applied in one process, and {launcher.environment_size()} were started: call it by itself"
        )
    net = translator_of(run, device=str(devices.pick(device)))
    place = next(net.parameters()).device
    source = expand_user(images)
    single = source.is_file() and source.suffix.lower() != ".zip"
    name = f"{source.stem}.png" if single else source_name(source)
    dest = Path(out) if out is not None else home_of(run) / f"translated-{name}"
    if dest.exists() and (single or not dest.is_dir() or any(dest.iterdir())):
        raise UserError(f"'{dest}' exists already: choose another --out")
    if single and dest.suffix.lower() != ".png":
        raise UserError(f"cannot write '{dest}': a translated image is a PNG, so give a name that ends in .png")

    turned_gray: list[str] = []

    def translated() -> Iterator[tuple[Path, Image.Image]]:
        with _listing(source, single) as listing, PassProgress(quiet=quiet) as show:
            note_left_out(listing, note_printer(quiet))
            peak = Peak(listing, net.about.get("white"))
            targets = _targets(listing)
            for number, name in enumerate(listing.names):
                what = f"the image '{name}' of '{images}'"
                x, lost_color = read_input(partial(listing.open_image, number), net, peak, what)
                turned_gray.extend([name] * lost_color)
                y = translate_in_tiles(net, x.to(place), tile=config.tile, overlap=config.overlap)
                show("translating", number + 1, len(listing.names))
                yield targets[number], _picture(y)

    if single:
        ((_, picture),) = translated()
        make_folder(dest.parent, parents=True)
        _save(picture, dest, write_atomically)
        _note_gray(turned_gray, quiet)
        return {"image": str(dest), "n": 1, "turned_gray": len(turned_gray)}
    n = 0
    with whole_folder(dest) as folder:
        for inside, picture in translated():
            target = folder / inside
            with explain_os_errors(dest):
                target.parent.mkdir(parents=True, exist_ok=True)
                _save(picture, target, _write_new)
            n += 1
    _note_gray(turned_gray, quiet)
    return {"folder": str(dest), "n": n, "turned_gray": len(turned_gray)}


def _note_gray(names: list[str], quiet: bool) -> None:
    if names:
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        note_printer(quiet)(f"'{names[0]}'{more} {'were' if more else 'was'} {TURNED_GRAY}")


def _save(picture: Image.Image, path: Path, write: Callable[[Path, bytes], Any]) -> None:
    import io

    file = io.BytesIO()
    picture.save(file, "PNG")
    write(path, file.getvalue())


def _write_new(path: Path, content: bytes) -> None:
    # Never over another: a file system may take names that differ in case alone for one.
    with path.open("xb") as file:
        file.write(content)


def _listing(source: Path, single: bool) -> Listing:
    from rivals.data.listing import Listing, is_hidden, is_image, no_images
    from rivals.data.readers import files_below, from_path

    if not single and not source.is_dir():
        return from_path(source, "all")
    if single and not is_image(source.name):
        raise UserError(f"'{source}' is no image by its name: name one, a folder or a zip")
    # A folder is taken as it is, whatever its subfolders mean to a training.
    found, special = ([source.name], []) if single else files_below(source)
    home = source.parent if single else source
    _check_links(home, found)
    names = [name for name in found if is_image(name)]
    others = [name for name in found if not is_image(name) and not is_hidden(name)]
    if not names:
        raise no_images(f"folder '{source}'", others + special)

    def read(index: int) -> bytes:
        return read_small_file(home / names[index], MOST_BYTES)

    whole = [partial(read, i) for i in range(len(names))]
    return Listing(f"'{source}'", names, None, (), read=read, whole=whole, skipped=others, special=special)


def _check_links(home: Path, names: Sequence[str]) -> None:
    """Refuse links to nothing: one to a folder would leave out all images in it."""
    for name in names:
        try:
            (home / name).stat()
        except FileNotFoundError:
            raise UserError(f"the link '{home / name}' leads nowhere: restore what it links to, or remove it") from None
        except OSError as error:
            raise UserError(f"cannot read '{home / name}': {error.strerror}: mend or remove it") from None


def _targets(listing: Listing) -> list[Path]:
    """What each image is written to, inside of the folder of all."""
    taken: dict[Path, str] = {}
    for name in listing.names:
        target = Path(name).with_suffix(".png")
        if target in taken:
            raise UserError(
                f"'{taken[target]}' and '{name}' of {listing.title} would both be written to '{target}': rename one"
            )
        taken[target] = name
    for target in taken:
        if folder := next((each for each in target.parents if each in taken), None):
            raise UserError(
                f"'{taken[folder]}' of {listing.title} cannot be written to the folder '{folder}': rename it"
            )
    return list(taken)


def _picture(y: Tensor) -> Image.Image:
    from rivals.api.translation.judgement import to_bytes
    from rivals.base.images import to_pil

    return to_pil(to_bytes(y[0]).numpy())
