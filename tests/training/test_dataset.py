"""FER-2013 in each of its forms, and what is wrong with data that is not."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
import pytest

from fer_stream.errors import SourceNotFound, UnreadableSource
from fer_stream.records import LABELS
from fer_stream.training.dataset import SPLITS, VOTES, duplicates, load_folder, load_splits

if TYPE_CHECKING:
    from pathlib import Path

USAGE = ("Training", "PublicTest", "PrivateTest")


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Kaggle's layout with seven images a part."""
    rng = np.random.default_rng(0)
    rows = [
        (label, " ".join(map(str, rng.integers(0, 256, 48 * 48))), usage) for usage in USAGE for label in range(7)
    ]
    path = tmp_path / "fer2013.csv"
    pd.DataFrame(rows, columns=["emotion", "pixels", "Usage"]).to_csv(path, index=False)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Kaggle's folders with ten images a class."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in LABELS:
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(10):
                image = rng.integers(0, 256, (48, 48), np.uint8)
                cv2.imwrite(str(tmp_path / part / name / f"{number}.png"), image)
    return tmp_path


def spoil(path: Path, column: str, value: str | int) -> None:
    table = pd.read_csv(path)
    table[column] = table[column].astype(object)
    table.loc[0, column] = value
    table.to_csv(path, index=False)


def test_the_real_dataset_has_its_published_sizes(fer2013: Path) -> None:
    parts = load_splits(fer2013)
    assert {part: len(faces) for part, faces in parts.items()} == {"train": 28709, "val": 3589, "test": 3589}
    assert np.bincount(parts["train"].labels).tolist() == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert int(duplicates(parts["val"].images, parts["train"].images).sum()) == 280
    assert int(duplicates(parts["test"].images, parts["train"].images).sum()) == 288


def test_csv_is_split_by_usage(csv: Path) -> None:
    parts = load_splits(csv)
    table = pd.read_csv(csv)
    for part, usage in zip(SPLITS, USAGE, strict=True):
        pixels = table[table["Usage"] == usage]["pixels"].str.split().tolist()
        np.testing.assert_array_equal(parts[part].images.reshape(7, -1), np.array(pixels, np.uint8))
        assert parts[part].labels.tolist() == list(range(7))
        assert not parts[part].votes.any()


def test_ferplus_votes_are_joined_by_row(csv: Path, tmp_path: Path) -> None:
    votes = np.arange(210).reshape(21, 10)
    table = pd.DataFrame(votes, columns=list(VOTES))
    table["Usage"] = np.repeat(USAGE, 7)
    table.to_csv(tmp_path / "fer2013new.csv", index=False)
    np.testing.assert_array_equal(load_splits(csv, tmp_path / "fer2013new.csv")["val"].votes, votes[7:14])
    table[:20].to_csv(tmp_path / "short.csv", index=False)
    with pytest.raises(UnreadableSource, match=r"has 20 rows and the images 21"):
        load_splits(csv, tmp_path / "short.csv")
    table[::-1].to_csv(tmp_path / "turned.csv", index=False)
    with pytest.raises(UnreadableSource, match=r"row 1 is test, the image of that row train"):
        load_splits(csv, tmp_path / "turned.csv")


def test_votes_with_folders_are_rejected(folders: Path) -> None:
    for load in (load_splits, load_folder):
        with pytest.raises(UnreadableSource, match=r"refers to the rows of fer2013\.csv"):
            load(folders, folders / "fer2013new.csv")


def test_folder_without_labels_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "cheerful").mkdir()
    with pytest.raises(UnreadableSource, match=r"contains no images .* in folders named angry"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"usage": np.full(21, 3)}, "expected usage to be 0, 1 or 2"),
        ({"usage": np.full(21, -1)}, "expected usage to be 0, 1 or 2"),
        ({"usage": np.full(21, "Training")}, "is not an .npz with images, labels and usage"),
        ({"usage": np.zeros(20, int)}, r"expected as many rows of each, received images \(21"),
        ({"labels": np.zeros(22, int)}, "expected as many rows of each"),
        ({"labels": np.int64(3)}, "expected as many rows of each"),
        ({"ferplus_votes": np.zeros((21, 8))}, r"expected ferplus_votes as \(n, 10\), received \(21, 8\)"),
        ({"row_uncertain": np.zeros(5, bool)}, "is not an .npz with images, labels and usage"),
        ({"usage": np.repeat([0, 2], [14, 7])}, "has no image of PublicTest"),
        ({"images": np.zeros((21, 48, 48), np.float32)}, "expected images as uint8"),
    ],
)
def test_invalid_npz_is_rejected(change: dict[str, np.ndarray], text: str, tmp_path: Path) -> None:
    right = {
        "images": np.zeros((21, 48, 48), np.uint8), "labels": np.tile(np.arange(7), 3),
        "usage": np.repeat([0, 1, 2], 7), "ferplus_votes": np.zeros((21, 10)),
    }  # fmt: skip
    np.savez(tmp_path / "right.npz", **right)  # type: ignore[arg-type]
    assert len(load_splits(tmp_path / "right.npz")["test"]) == 7
    np.savez(tmp_path / "wrong.npz", **(right | change))  # type: ignore[arg-type]
    with pytest.raises(UnreadableSource, match=text):
        load_splits(tmp_path / "wrong.npz")


def test_truncated_file_is_rejected(tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", images=np.zeros((9, 48, 48), np.uint8))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:9000])
    with pytest.raises(UnreadableSource, match=r"cut\.npz is not an \.npz"):
        load_splits(tmp_path / "cut.npz")


def test_folders_without_validation_use_a_tenth_of_training(folders: Path) -> None:
    parts = load_splits(folders)
    assert {part: len(faces) for part, faces in parts.items()} == {"train": 63, "val": 7, "test": 70}
    assert parts["val"].labels.tolist() == list(range(7))
    assert not duplicates(parts["val"].images, parts["train"].images).any()


def test_folder_with_some_labels_can_be_evaluated(folders: Path) -> None:
    large = np.full((96, 96), 200, np.uint8)
    cv2.imwrite(str(folders / "test" / "happy" / "large.png"), large)
    shutil.rmtree(folders / "test" / "disgust")
    faces = load_folder(folders / "test")
    assert len(faces) == 61
    assert np.bincount(faces.labels).tolist() == [10, 0, 10, 11, 10, 10, 10]
    assert (faces.images[(faces.images == 200).all(axis=(1, 2))]).shape == (1, 48, 48)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("pixels", "1 2 3", "Each row contains 48×48 pixels"),
        ("pixels", "300 " * 48 * 48, "pixels from 0 to 255"),
        ("emotion", 7, "expected labels from 0 to 6"),
        ("Usage", "Validation", "expected Usage to be one of Training"),
    ],
)
def test_invalid_csv_is_rejected(csv: Path, column: str, value: str | int, text: str) -> None:
    spoil(csv, column, value)
    with pytest.raises(UnreadableSource, match=text):
        load_splits(csv)


def test_invalid_votes_table_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UnreadableSource, match="has no column 'Usage'"):
        load_splits(tmp_path / "other.csv")
    with pytest.raises(SourceNotFound, match="does not exist"):
        load_splits(tmp_path / "none.csv")


def test_missing_class_is_reported(csv: Path, folders: Path) -> None:
    spoil(csv, "emotion", 1)
    with pytest.raises(UnreadableSource, match="has no training image of angry"):
        load_splits(csv)
    for file in (folders / "train" / "fear").iterdir():
        file.unlink()
    (folders / "train" / "fear").rmdir()
    with pytest.raises(UnreadableSource, match="has no fear"):
        load_splits(folders)


def test_image_that_is_not_a_face_crop_is_reported(folders: Path) -> None:
    cv2.imwrite(str(folders / "test" / "sad" / "wide.png"), np.zeros((48, 96), np.uint8))
    with pytest.raises(UnreadableSource, match=r"wide\.png is 96×48: expected square face crops"):
        load_folder(folders / "test")
    (folders / "test" / "sad" / "wide.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableSource, match=r"wide\.png is not a readable image"):
        load_folder(folders / "test")
