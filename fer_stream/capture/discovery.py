"""Which files the arguments of a run mean, and what their sources and outputs are called."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from fer_stream.errors import SourceNotFound, UnreadableSource
from fer_stream.log import redact_secrets

IMAGE_SUFFIXES = frozenset({
    ".avif", ".bmp", ".dib", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
    ".tiff", ".webp",
})  # fmt: skip
"""Files read as one still image each. A GIF counts as video, since it may move."""

VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc",
    ".ivf", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".nut", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
})  # fmt: skip
"""What is taken for a video inside a folder. A file that is named outright may end in anything."""

_OWN_OUTPUTS = (".annotated.mp4", ".annotated.png", ".timeline.png")
_SOURCE_NAME_LENGTH = 63


def find_sources(arguments: Sequence[str | Path]) -> list[Path]:
    """The files that `arguments` name, in that order, each once.

    A file is taken as named. Of a folder, every video and image below it is taken in natural order (`clip2` before
    `clip10`), except hidden files and what fer-stream wrote itself. A pattern (`*`, `?`, `[…]`, `**`) that the
    shell left alone is expanded, unless a file of that very name exists.

    Raises `SourceNotFound` for an argument that yields nothing, `UnreadableSource` for a folder that may not be
    listed and for an address.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        for path in _expand(str(argument)):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def is_image(path: Path) -> bool:
    """Is the file to be read as a still image? Goes by the suffix alone."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def output_names(paths: Sequence[Path]) -> list[str]:
    """A name for the outputs of each source, all different, also where case does not count.

    The stem; for sources that share it, the name with its suffix; where that is taken too, a number behind it.
    """
    stems = Counter(path.stem.casefold() for path in paths)
    taken: set[str] = set()
    names = []
    for path in paths:
        wanted = path.stem if stems[path.stem.casefold()] == 1 else path.name
        name, number = wanted, 1
        while name.casefold() in taken:
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def source_name(text: str) -> str:
    """`text`, as it may be the name of any file, as a valid source name: `[a-z0-9][a-z0-9_-]{0,62}`.

    Accents are dropped and whatever else has no place becomes a hyphen. Where nothing is left, as of a name in
    Chinese, the name is made from a hash of the text, so that different files keep different names.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:_SOURCE_NAME_LENGTH]
    return name or f"source-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def check_file(path: Path) -> None:
    """Raise `SourceNotFound` or `UnreadableSource`, saying why, unless `path` is a file with something in it."""
    try:
        status = path.stat()
        # A pipe would block, and a device is not a file: both are told by their mode, before they are opened.
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceNotFound(f"There is no file {_shown(path)}. Check the name and the folder.") from None
    except PermissionError:
        raise UnreadableSource(
            f"{_shown(path)} may not be read by this user. Change its permissions, or run as its owner."
        ) from None
    except (OSError, ValueError) as error:
        raise UnreadableSource(f"{_shown(path)} cannot be opened: {error}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableSource(f"{_shown(path)} is a folder. Name the files in it, or let find_sources do so.")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableSource(f"{_shown(path)} is a pipe or a device. Save the video to a file first.")
    if not status.st_size:
        raise UnreadableSource(f"{_shown(path)} is empty. Copy or download it again.")


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if "://" in argument:
        raise UnreadableSource(
            f"{redact_secrets(argument)} is an address, not a file. Download it; cameras are read by `fer-stream serve`."
        )
    if os.path.lexists(path):
        return _in_folder(path) if path.is_dir() else [path]
    if not glob.has_magic(argument):
        raise SourceNotFound(f"There is no file or folder {_shown(path)}. Check the name.")
    expanded = glob.glob(argument, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    matches = sorted(map(Path, expanded), key=_natural)
    if not matches:
        raise SourceNotFound(f"No file matches {_shown(path)}. Check the pattern and the folder.")
    return [path for match in matches for path in (_in_folder(match) if match.is_dir() else [match])]


def _in_folder(folder: Path) -> list[Path]:
    found = sorted(_walk(folder), key=_natural)
    if not found:
        raise SourceNotFound(f"The folder {folder} holds no video and no image. Name the files where they end oddly.")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UnreadableSource(
            f"The folder {error.filename} cannot be listed: {error.strerror}. Change its permissions or leave it out."
        ) from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            known = Path(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
            if known and not name.startswith(".") and not name.endswith(_OWN_OUTPUTS):
                yield Path(parent, name)


def _natural(path: Path) -> tuple[tuple[tuple[int, str], ...], ...]:
    """Sorts paths part by part, with the numbers in them as numbers."""
    return tuple(
        tuple((int(piece), "") if piece.isdecimal() else (-1, piece.casefold()) for piece in re.split(r"(\d+)", part))
        for part in path.parts
    )


def _shown(path: Path) -> str:
    # Path folds the slashes of an address that was taken for a file, and its password must not be shown either.
    return redact_secrets(re.sub(r"^(\w+):/(?=[^/])", r"\1://", str(path)))
