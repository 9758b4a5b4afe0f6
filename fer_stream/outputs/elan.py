"""NAME.eaf: a document of ELAN (EAF 3.0) with one tier per person.

Format: https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf
"""

from __future__ import annotations

from itertools import count
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from fer_stream.outputs.export import ExportedTimeline

_TYPE = "emotion"
_SCHEMA = {
    "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
    "xsi:noNamespaceSchemaLocation": "http://www.mpi.nl/tools/elan/EAFv3.0.xsd",
}


def render(timeline: ExportedTimeline) -> str:
    """Return the document. The medium is referred to by its path and by its name beside the document."""
    root = ET.Element(
        "ANNOTATION_DOCUMENT",
        AUTHOR="fer-stream",
        DATE=timeline.analysed_at or "1970-01-01T00:00:00Z",
        FORMAT="3.0",
        VERSION="3.0",
        attrib=_SCHEMA,
    )
    _add_header(root, timeline)
    order = ET.SubElement(root, "TIME_ORDER")
    slots, annotations = count(1), count(1)
    for person_id, segments in timeline.segments.items():
        tier = ET.SubElement(root, "TIER", LINGUISTIC_TYPE_REF=_TYPE, TIER_ID=f"person {person_id}")
        for segment in segments:
            ends = []
            for time_ms in (segment.start_ms, segment.end_ms):
                ends.append(f"ts{next(slots)}")
                ET.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=ends[-1], TIME_VALUE=str(time_ms))
            annotation = ET.SubElement(
                ET.SubElement(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{next(annotations)}",
                TIME_SLOT_REF1=ends[0],
                TIME_SLOT_REF2=ends[1],
            )
            ET.SubElement(annotation, "ANNOTATION_VALUE").text = segment.text
    ET.SubElement(
        root, "LINGUISTIC_TYPE", GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID=_TYPE, TIME_ALIGNABLE="true"
    )
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _add_header(root: ET.Element, timeline: ExportedTimeline) -> None:
    header = ET.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if timeline.media_path is None:
        return
    path = Path(timeline.media_path)
    ET.SubElement(
        header,
        "MEDIA_DESCRIPTOR",
        MEDIA_URL=path.as_uri(),
        MIME_TYPE=guess_type(path.name)[0] or "video/mp4",
        RELATIVE_MEDIA_URL=f"./{path.name}",
    )
