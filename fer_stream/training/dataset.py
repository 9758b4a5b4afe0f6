"""Labelled faces from FER-2013 in any of its formats, with FER+ votes if available.

fer2013.csv             emotion, pixels, Usage: 35,887 rows, emotion in the order of `records.LABELS`
fer2013new.csv          FER+: votes of ten raters per face, in the same order of rows
train/angry/*.jpg …     Kaggle's folders, with test/ and optionally validation/
faces.npz               images, labels, usage, ferplus_votes
angry/*.png …           labelled faces of at least one of the seven labels, for `fer-stream evaluate`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args
from zipfile import BadZipFile

import numpy as np

from fer_stream.errors import SourceNotFound, UnreadableSource
from fer_stream.records import CROP_SIZE_PX, F32, FERPLUS, I64, LABELS, U8

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""Training, PublicTest (validation) and PrivateTest."""

VOTES = (*FERPLUS, "unknown", "NF")
"""Votes of FER+ raters in the order of its columns; NF is not a face."""

_USAGE: dict[str, Split] = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_FOLDERS: dict[str, Split] = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp"))

# Kaggle's folders have no PublicTest: every tenth image of train/ replaces it.
_HELD_OUT_STEP = 10


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled faces.

    `images` uint8 (n, 48, 48); `labels` int64 (n,), indices of `records.LABELS`; `votes` float32 (n, 10), number
    of votes for each of `VOTES`, rows of 0 without votes.
    """

    images: U8
    labels: I64
    votes: F32

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.labels)

    def __getitem__(self, which: NDArray[np.bool_] | I64) -> Dataset:
        """Select faces by a mask or by indices."""
        return Dataset(self.images[which], self.labels[which], self.votes[which])


def load_splits(path: Path, ferplus: Path | None = None) -> dict[Split, Dataset]:
    """Load FER-2013 by split.

    Raises `SourceNotFound` if `path` does not exist, and `UnreadableSource` for other columns, sizes or labels, a
    missing split, a class without training images, or FER+ rows that do not match.
    """
    _check_path(path, ferplus)
    if path.is_dir():
        parts = _load_folders(path)
    else:
        faces, part = _load_npz(path) if path.suffix == ".npz" else _load_csv(path)
        if ferplus:
            faces = Dataset(faces.images, faces.labels, _load_ferplus(ferplus, part))
        parts = {name: faces[part == name] for name in SPLITS}
    _check_splits(parts, path)
    return parts


def is_plain_folder(path: Path) -> bool:
    """Return whether `path` is a folder of labelled faces, without the splits of FER-2013."""
    return path.is_dir() and not (path / "train").is_dir()


def load_folder(path: Path, ferplus: Path | None = None) -> Dataset:
    """Load a folder with one sub-folder per label; labels can be missing.

    Raises `UnreadableSource` if it has none, an image is not square, or `ferplus` is given.
    """
    _check_path(path, ferplus)
    return _load_classes(path, [label for label in LABELS if (path / label).is_dir()])


def duplicates(images: U8, reference: U8) -> NDArray[np.bool_]:
    """Return which of `images` (n, 48, 48) equal an image of `reference` (m, 48, 48), bool (n,)."""
    known = {image.tobytes() for image in reference}
    return np.array([image.tobytes() in known for image in images], np.bool_)


def _load_csv(path: Path) -> tuple[Dataset, NDArray[np.str_]]:
    import pandas as pd

    try:
        table = pd.read_csv(path).rename(columns=str.strip)
        usage, labels = table["Usage"].map(_USAGE), table["emotion"].to_numpy(np.int64)
        images = np.array([np.array(text.split(), np.uint8) for text in table["pixels"]])
        images = images.reshape(-1, CROP_SIZE_PX, CROP_SIZE_PX)
    except KeyError as error:
        raise UnreadableSource(
            f"{path} has no column {error}. Expected Kaggle's fer2013.csv with emotion, pixels and Usage; "
            "icml_face_data.csv is the same."
        ) from error
    except (ValueError, OverflowError, AttributeError) as error:
        raise UnreadableSource(
            f"{path} is not Kaggle's fer2013.csv: {error}. Each row contains {CROP_SIZE_PX}×{CROP_SIZE_PX} pixels "
            "from 0 to 255."
        ) from error
    if usage.isna().any():
        raise UnreadableSource(f"{path}: expected Usage to be one of {', '.join(_USAGE)}.")
    _check_labels(labels, path)
    return Dataset(images, labels, _no_votes(len(labels))), usage.to_numpy(np.str_)


def _load_npz(path: Path) -> tuple[Dataset, NDArray[np.str_]]:
    try:
        with np.load(path) as file:
            images, labels, usage = file["images"], file["labels"].astype(np.int64), file["usage"].astype(np.int64)
            votes = file["ferplus_votes"].astype(np.float32) if "ferplus_votes" in file else _no_votes(len(labels))
            if "row_uncertain" in file:
                votes[file["row_uncertain"]] = 0
    except (BadZipFile, EOFError, IndexError, KeyError, TypeError, ValueError, OSError) as error:
        raise UnreadableSource(f"{path} is not an .npz with images, labels and usage: {error}.") from error
    _check_rows(path, images=images, labels=labels, usage=usage, ferplus_votes=votes)
    if votes.shape[1:] != (len(VOTES),):
        raise UnreadableSource(f"{path}: expected ferplus_votes as (n, {len(VOTES)}), received {votes.shape}.")
    if not np.isin(usage, range(len(SPLITS))).all():
        raise UnreadableSource(f"{path}: expected usage to be 0, 1 or 2: {', '.join(_USAGE)}.")
    if images.dtype != np.uint8 or images.shape[1:] != (CROP_SIZE_PX, CROP_SIZE_PX):
        raise UnreadableSource(
            f"{path}: expected images as uint8 (n, {CROP_SIZE_PX}, {CROP_SIZE_PX}), "
            f"received {images.dtype} {images.shape}."
        )
    _check_labels(labels, path)
    return Dataset(images, labels, votes), np.array(SPLITS)[usage]


def _load_ferplus(path: Path, part: NDArray[np.str_]) -> F32:
    """Load the votes; `part` has the split of each row."""
    import pandas as pd

    try:
        table = pd.read_csv(path)
        votes = table[list(VOTES)].to_numpy(np.float32)
        usage = table["Usage"].map(_USAGE).to_numpy(np.str_)
    except FileNotFoundError as error:
        raise SourceNotFound(f"{path} does not exist. Expected fer2013new.csv of Microsoft FERPlus.") from error
    except (KeyError, ValueError) as error:
        raise UnreadableSource(f"{path} is not fer2013new.csv of Microsoft FERPlus: {error}.") from error
    if len(votes) != len(part):
        raise UnreadableSource(
            f"{path} has {len(votes)} rows and the images {len(part)}: they are not of one dataset."
        )
    if (usage != part).any():
        row = int(np.argmax(usage != part))
        raise UnreadableSource(
            f"{path} has another order: row {row + 1} is {usage[row]}, the image of that row {part[row]}. Take "
            "fer2013.csv as Kaggle gave it."
        )
    return votes


def _load_folders(path: Path) -> dict[Split, Dataset]:
    found = {part: _load_classes(path / name, LABELS) for name, part in _FOLDERS.items() if (path / name).is_dir()}
    if missing := {"train", "test"} - set(found):
        names = " and ".join("train/" if part == "train" else "test/" for part in sorted(missing, reverse=True))
        raise UnreadableSource(f"{path} has no {names}. Expected train/angry/*.jpg …, test/angry/*.jpg ….")
    if "val" not in found:
        train = found["train"]
        held_back = np.arange(len(train)) % _HELD_OUT_STEP == 0
        found |= {"train": train[~held_back], "val": train[held_back]}
    return found


def _load_classes(path: Path, labels: Sequence[str]) -> Dataset:
    if missing := [label for label in labels if not (path / label).is_dir()]:
        raise UnreadableSource(
            f"{path} has no {', '.join(missing)}. Expected a folder for each of {', '.join(LABELS)}."
        )
    files = [(file, LABELS.index(label)) for label in labels for file in _image_files(path / label)]
    if not files:
        raise UnreadableSource(
            f"{path} contains no images ({', '.join(sorted(_IMAGE_SUFFIXES))}) in folders named {', '.join(LABELS)}."
        )
    images = np.stack([_read_gray(file) for file, _ in files])
    return Dataset(images, np.array([label for _, label in files], np.int64), _no_votes(len(files)))


def _image_files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.iterdir()) if file.suffix.lower() in _IMAGE_SUFFIXES)


def _read_gray(file: Path) -> U8:
    """Read an image as uint8 (48, 48). Square images are scaled; others are refused."""
    import cv2

    image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise UnreadableSource(f"{file} is not a readable image. Remove it, or download it again.")
    height, width = image.shape
    if height != width:
        raise UnreadableSource(f"{file} is {width}×{height}: expected square face crops. Crop it to the face.")
    if height == CROP_SIZE_PX:
        return np.asarray(image, np.uint8)
    shrink = height > CROP_SIZE_PX
    scaled = cv2.resize(
        image, (CROP_SIZE_PX, CROP_SIZE_PX), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )
    return np.asarray(scaled, np.uint8)


def _no_votes(n: int) -> F32:
    return np.zeros((n, len(VOTES)), np.float32)


def _check_labels(labels: I64, path: Path) -> None:
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(LABELS):
        raise UnreadableSource(f"{path}: expected labels from 0 to {len(LABELS) - 1}: {', '.join(LABELS)}.")


def _check_path(path: Path, ferplus: Path | None) -> None:
    if not path.exists():
        raise SourceNotFound(
            f"{path} does not exist. Expected fer2013.csv, its folder with train/ and test/, or an .npz."
        )
    if path.is_dir() and ferplus:
        raise UnreadableSource(
            f"{ferplus} refers to the rows of fer2013.csv: use that file instead of the folder {path}."
        )


def _check_rows(path: Path, **arrays: NDArray[Any]) -> None:
    if len({len(array) if array.ndim else 0 for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise UnreadableSource(f"{path}: expected as many rows of each, received {shapes}.")


def _check_splits(parts: Mapping[Split, Dataset], path: Path) -> None:
    if empty := [usage for usage, part in _USAGE.items() if not len(parts[part])]:
        raise UnreadableSource(f"{path} has no image of {', '.join(empty)}.")
    labels = parts["train"].labels
    if missing := [name for index, name in enumerate(LABELS) if not (labels == index).any()]:
        raise UnreadableSource(f"{path} has no training image of {', '.join(missing)}.")
