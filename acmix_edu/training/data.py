"""Pictures to train on: drawn by code, from the installed libraries, or from a folder of yours.

The generated tasks are painted on a 16×16 grid of cells of 2×2 pixels. The network's stem reads 2×2
pixels, so it sees one cell and no neighbour: what lies between cells is left to the operator under
test.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from acmix_edu.examples import photograph

SIZE = 32
CELLS = 16


@dataclass(frozen=True)
class Data:
    """Pictures ``[n, 3, 32, 32]``, values 0 … 1, and labels ``[n]``, for training and for test."""

    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    classes: tuple[str, ...]


def load(name: str, path: str | Path | None = None) -> Data:
    """Return one of the data sets, with the same pictures at every call.

    Args:
        name: "texture", "match" or "mixture" (drawn by code), "digits" (scikit-learn's, scaled to
            32×32), "rotation" (turned crops of two photographs), "cifar10" or "folder".
        path: for "cifar10" the folder of its binary files; for "folder" one that holds
            train/CLASS/picture and test/CLASS/picture.

    Example:
        >>> load("match").train_x.shape
        torch.Size([2048, 3, 32, 32])
    """
    if name not in SOURCES:
        raise ValueError(f"data must be one of {', '.join(SOURCES)}, but {name!r} came.")
    source = SOURCES[name]
    if (path is not None) != (source in (cifar10, folder)):
        raise ValueError(
            f"path is for the data cifar10 and folder, which need one; {name} came with {path}."
        )
    return source() if path is None else source(Path(path))


def _generated(draw, classes: tuple[str, str], train: int) -> Data:
    generator = torch.Generator().manual_seed(20211129)
    y = torch.randint(2, (train + 512,), generator=generator)
    x = 0.5 + 0.35 * draw(y, generator)
    x = (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    return Data(x[:train], y[:train], x[train:], y[train:], classes)


def _signs(generator: torch.Generator, *shape: int, chance: float = 0.5) -> torch.Tensor:
    return 2.0 * (torch.rand(shape, generator=generator) < chance) - 1


def _draw_texture(y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw light and dark cells; in rows (y = 0) or columns three in four differ from the last."""
    steps = _signs(generator, len(y), CELLS, CELLS, chance=0.25)
    steps[..., 0] = _signs(generator, len(y), CELLS)
    signs = steps.cumprod(dim=-1)
    signs = torch.where(y[:, None, None] == 1, signs.mT, signs)
    return F.interpolate(signs[:, None], scale_factor=2).expand(-1, 3, -1, -1)


def _draw_match(y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw a chessboard of cells: black ones carry a mark, low or high; white ones carry none.

    A cell's patch is its 2×2 pixels of red and green, each on or off. In a white cell the patch is
    a copy of that in a black cell, 2 or 3 cells away, whose mark is y (1 is high); which of these
    is drawn by chance. Of the marks in each 2×2 block of cells, one is low and one is high. Blue
    holds the mark.
    """
    n, half = len(y), CELLS // 2
    black = (torch.arange(CELLS)[:, None] + torch.arange(CELLS)) % 2 == 1
    mark = _signs(generator, n, half, half).repeat_interleave(2, 1).repeat_interleave(2, 2)
    mark = mark * (1 - 2 * (torch.arange(CELLS)[:, None] % 2)) * black
    patch = _signs(generator, n, 8, CELLS, CELLS)
    i, j = torch.arange(49) // 7 - 3, torch.arange(49) % 7 - 3
    away = torch.maximum(i.abs(), j.abs()) >= 2
    marks = F.unfold(mark[:, None], 7, padding=3)  # [n, 49, cells]; zero outside and on white
    fits = (marks == 2.0 * y[:, None, None] - 1) & away[:, None]
    chosen = (torch.rand(fits.shape, generator=generator) * fits).argmax(1)
    target = (torch.arange(CELLS**2) + (i * CELLS + j)[chosen]).clamp(0, CELLS**2 - 1)
    copy = patch.flatten(2).gather(2, target[:, None].expand(-1, 8, -1))
    patch = torch.where(black, patch, copy.view_as(patch))
    return F.pixel_shuffle(torch.cat([patch, mark[:, None].expand(-1, 4, -1, -1)], 1), 2)


def _draw_mixture(y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw each picture of one of the two tasks, by chance; its label keeps that task's meaning."""
    which = torch.rand(len(y), 1, 1, 1, generator=generator) < 0.5
    return torch.where(which, _draw_texture(y, generator), _draw_match(y, generator))


def _library(name: str):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'these pictures need {name}; install it with pip install "acmix-edu[book]".'
        ) from error


def texture() -> Data:
    """Do cells alternate along rows or along columns? Neighbours show it; distant cells do not."""
    return _generated(_draw_texture, ("rows", "columns"), train=1024)


def match() -> Data:
    """Does each patch without a mark copy one that is marked low, or one that is marked high?"""
    return _generated(_draw_match, ("low", "high"), train=2048)


def mixture() -> Data:
    """Return pictures of both tasks, about half of each."""
    return _generated(_draw_mixture, ("rows or low", "columns or high"), train=2048)


def digits() -> Data:
    """Return scikit-learn's 1,797 digits, scaled from 8×8 to 32×32; every fourth is for test."""
    x, y = _library("sklearn.datasets").load_digits(return_X_y=True)
    x = torch.from_numpy(x).float().reshape(-1, 1, 8, 8) / 16
    x = F.interpolate(x, size=SIZE, mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    y = torch.from_numpy(y).long()
    test = torch.arange(len(y)) % 4 == 3
    return Data(x[~test], y[~test], x[test], y[test], tuple("0123456789"))


def rotation() -> Data:
    """Return crops of two photographs, turned by 0, 90, 180 or 270°.

    Test crops come from the right third of the photographs, and training crops from the left two
    thirds, so no pixel is in both.
    """
    generator = torch.Generator().manual_seed(20211129)
    photos = [photograph(name, size=144)[0] for name in ("china", "flower")]

    def crops(number: int, left: int, right: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.arange(number) % 4
        top = torch.randint(0, 144 - SIZE + 1, (number,), generator=generator)
        side = torch.randint(left, right - SIZE + 1, (number,), generator=generator)
        x = [
            photos[n // 4 % 2][:, i : i + SIZE, j : j + SIZE].rot90(n % 4, (1, 2))
            for n, (i, j) in enumerate(zip(top.tolist(), side.tolist(), strict=True))
        ]
        return torch.stack(x), y

    return Data(*crops(2048, 0, 96), *crops(512, 96, 144), ("0°", "90°", "180°", "270°"))


CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(path: Path) -> Data:
    """Return CIFAR-10 from its binary files data_batch_1.bin … data_batch_5.bin, test_batch.bin."""

    def read(name: str) -> np.ndarray:
        file = path / name
        if not file.is_file():
            raise FileNotFoundError(
                f"path must hold {name}, but {path} does not; unpack the binary version of "
                "CIFAR-10 (cifar-10-binary.tar.gz) and pass its folder."
            )
        raw = np.fromfile(file, np.uint8)
        if raw.size == 0 or raw.size % 3073 or raw.reshape(-1, 3073)[:, 0].max() > 9:
            raise ValueError(
                f"{file} is not a CIFAR-10 binary file: rows of a label 0–9 and 3,072 "
                f"bytes were expected, {raw.size} bytes came; unpack it again."
            )
        return raw.reshape(-1, 3073)

    def split(raw: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.from_numpy(raw)
        return rows[:, 1:].reshape(-1, 3, SIZE, SIZE).float() / 255, rows[:, 0].long()

    train = np.concatenate([read(f"data_batch_{n}.bin") for n in range(1, 6)])
    return Data(*split(train), *split(read("test_batch.bin")), CIFAR)


def folder(path: Path) -> Data:
    """Return pictures from train/CLASS/ and test/CLASS/, read with Pillow and scaled to 32×32."""
    image = _library("PIL.Image")

    def names(part: str) -> tuple[str, ...]:
        folders = sorted(p.name for p in (path / part).glob("*") if p.is_dir())
        if not folders:
            raise FileNotFoundError(
                f"path must hold {part}/CLASS/picture, but {path / part} holds no folders; "
                "sort the pictures into one folder for each class."
            )
        return tuple(folders)

    def read(part: str, classes: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        files = [(f, n) for n, c in enumerate(classes) for f in sorted((path / part / c).iterdir())]
        if not files:
            raise FileNotFoundError(
                f"path must hold {part}/CLASS/picture, but the folders of {path / part} are empty."
            )
        pictures = [
            torch.from_numpy(np.array(image.open(f).convert("RGB").resize((SIZE, SIZE))))
            for f, _ in files
        ]
        x = torch.stack(pictures).permute(0, 3, 1, 2).contiguous().float() / 255
        return x, torch.tensor([n for _, n in files])

    classes = names("train")
    if (came := names("test")) != classes:
        raise ValueError(f"test/ must hold the classes of train/, {classes}, but {came} came.")
    return Data(*read("train", classes), *read("test", classes), classes)


SOURCES: dict[str, Callable[..., Data]] = {
    f.__name__: f for f in (texture, match, mixture, digits, rotation, cifar10, folder)
}
