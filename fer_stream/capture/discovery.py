"""Expansion of command-line arguments to source files, and names of sources and outputs."""

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
"""Suffixes of still images. A GIF is a video, since it can be animated."""

VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc",
    ".ivf", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".nut", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
})  # fmt: skip
"""Suffixes of videos in a folder. A file passed by name can have any suffix."""

_OWN_OUTPUTS = (".annotated.mp4", ".annotated.png", ".timeline.png")
_SOURCE_NAME_LENGTH = 63


def discover(arguments: Sequence[str | Path]) -> list[Path]:
    """Return the files selected by `arguments`, in order and without duplicates.

    A file is used as given. A folder is searched recursively for videos and images, in natural order (`clip2` before
    `clip10`), without hidden files and outputs of fer-stream. A pattern (`*`, `?`, `[…]`, `**`) is expanded unless a
    file with that name exists.

    Raises `SourceNotFound` if an argument selects no file, and `UnreadableSource` for a URL or a folder that may not
    be listed.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        for path in _expand(str(argument)):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def is_image(path: Path) -> bool:
    """Return True if the suffix is that of a still image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def output_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for the outputs of each source, unique regardless of case.

    The stem of the file; with its suffix if several sources have the same stem; with a number if that is not unique.
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


def slugify(text: str) -> str:
    """Convert `text`, such as a file name, to a valid source name: `[a-z0-9][a-z0-9_-]{0,62}`.

    Accents are removed and other invalid characters replaced by a hyphen. If nothing is left, as of a Chinese name,
    the result contains a hash of the text, so that different files have different names.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[:_SOURCE_NAME_LENGTH]
    return name or f"source-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def ensure_readable(path: Path) -> None:
    """Raise `SourceNotFound` or `UnreadableSource` unless `path` is a readable, non-empty regular file."""
    try:
        status = path.stat()
        # Opening a pipe would block, so only regular files are opened.
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceNotFound(f"File not found: {_safe_str(path)}. Check the name and the folder.") from None
    except PermissionError:
        raise UnreadableSource(
            f"No permission to read {_safe_str(path)}. Change its permissions, or run as its owner."
        ) from None
    except (OSError, ValueError) as error:
        raise UnreadableSource(f"{_safe_str(path)} cannot be opened: {error}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableSource(f"{_safe_str(path)} is a folder. Pass the files in it.")
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableSource(f"{_safe_str(path)} is a pipe or a device. Save its contents to a file first.")
    if not status.st_size:
        raise UnreadableSource(f"{_safe_str(path)} is empty. Copy or download it again.")


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if "://" in argument:
        raise UnreadableSource(
            f"{redact_secrets(argument)} is a URL, not a file. Download it first; for cameras use `fer-stream serve`."
        )
    if os.path.lexists(path):
        return _files_in(path) if path.is_dir() else [path]
    if not glob.has_magic(argument):
        raise SourceNotFound(f"File or folder not found: {_safe_str(path)}. Check the name.")
    expanded = glob.glob(argument, recursive=True)  # noqa: PTH207 - Path.glob does not accept absolute patterns
    matches = sorted(map(Path, expanded), key=_natural_key)
    if not matches:
        raise SourceNotFound(f"No file matches {_safe_str(path)}. Check the pattern and the folder.")
    return [path for match in matches for path in (_files_in(match) if match.is_dir() else [match])]


def _files_in(folder: Path) -> list[Path]:
    found = sorted(_walk(folder), key=_natural_key)
    if not found:
        raise SourceNotFound(f"{folder} contains no supported files. Pass files with other extensions explicitly.")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    def on_error(error: OSError) -> None:
        raise UnreadableSource(
            f"Cannot list folder {error.filename}: {error.strerror}. Change its permissions, or do not pass it."
        ) from error

    for parent, folders, files in os.walk(folder, onerror=on_error):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            supported = Path(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
            if supported and not name.startswith(".") and not name.endswith(_OWN_OUTPUTS):
                yield Path(parent, name)


def _natural_key(path: Path) -> tuple[tuple[tuple[int, str], ...], ...]:
    """Sort key that compares paths by their parts, and digits in them as numbers."""
    return tuple(
        tuple((int(piece), "") if piece.isdecimal() else (-1, piece.casefold()) for piece in re.split(r"(\d+)", part))
        for part in path.parts
    )


def _safe_str(path: Path) -> str:
    # Path merges the slashes of a URL passed as a file; restored here, so that its password is redacted.
    return redact_secrets(re.sub(r"^(\w+):/(?=[^/])", r"\1://", str(path)))
