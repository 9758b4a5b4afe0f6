"""Colours of labels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from fer_stream.outputs.draw import COLOURS, bgr
from fer_stream.records import LABELS, UNKNOWN

# Machado, Oliveira and Fernandes (2009), severity 1.0, for linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def _lab(label: str, seen_through: object) -> np.ndarray:
    rgb = np.array(bgr(label)[::-1]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(seen_through) @ linear, 0, 1)
    return np.asarray(rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)))


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_are_distinguishable_with_every_type_of_colour_vision(deficiency: str) -> None:
    seen = {label: _lab(label, DEFICIENCIES[deficiency]) for label in LABELS}
    pairs = list(combinations(LABELS, 2))
    differences = deltaE_ciede2000([seen[a] for a, _ in pairs], [seen[b] for _, b in pairs])  # type: ignore[no-untyped-call]
    smallest = min(zip(differences, pairs, strict=True))
    # A difference of 2 is just noticeable; 9 is clear side by side.
    assert smallest[0] > 9, smallest


def test_every_label_has_a_different_colour() -> None:
    assert list(COLOURS) == [*LABELS, UNKNOWN]
    assert len(set(COLOURS.values())) == 8
    assert bgr("angry") == (0x00, 0x5E, 0xD5)
