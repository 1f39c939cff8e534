"""The meanings of findings about a data set, as a table: severity, consequence and remedy of each.

docs/datasets.md lists every code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reid_core.data.contents import SAMPLES

Severity = Literal["error", "warning", "info"]


MANY_SAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Meaning:
    """The severity of a finding, its consequence, its remedy, and the number of its cases that are named."""

    severity: Severity
    detail: str
    fix: str
    samples: int = SAMPLES


MEANINGS: dict[str, Meaning] = {
    "unusable": Meaning(
        "error",
        "It can neither be trained on (that takes two people in train) nor evaluated (a query with a match).",
        "See the other findings; add images to train, or matches of the query identities to gallery.",
    ),
    "queries-without-cross-camera-positive": Meaning(
        "warning",
        "These queries have no gallery image of the same identity from another camera, so no answer can be right. "
        "Evaluation leaves them out; with no other queries it is refused.",
        "Put an image of each named identity from another camera into gallery, or take it out of query. If the camera "
        "labels are wrong or all the same, leave them empty.",
    ),
    "single-camera": Meaning(
        "warning",
        "Every image has the same camera. Images by the query's own camera are left out of the scores, so nothing "
        "can be evaluated, and camera-aware training has nothing to learn from.",
        "Correct the camera labels. If there is really one camera only, leave them empty: every image then counts as "
        "taken by a camera of its own.",
    ),
    "no-camera-labels": Meaning(
        "warning",
        "These images have no camera. Each counts as taken by a camera of its own: near-identical shots of the same "
        "moment are then matches, and scores look better than they are. Camera-aware training ignores them.",
        "Name the camera in the file name (_c1, _cam1), in a sub-folder, or in the manifest's column camera.",
    ),
    "single-camera-identities": Meaning(
        "info",
        "These training identities were seen by one camera only: they teach nothing about a change of camera.",
        "Add images of them from other cameras, if there are any.",
    ),
    "identities-below-k": Meaning(
        "info",
        "These training identities have fewer than {k} images: a batch that wants {k} of each shows some twice.",
        "Add images of them, or lower settings.batch.images_per_identity.",
    ),
    "identity-overlap": Meaning(
        "warning",
        "These identities are in train and also in query or gallery: scores will be better than on people never seen.",
        "Keep each person in train or in query and gallery. If these are different people, give them different labels.",
    ),
    "duplicate-pictures": Meaning(
        "warning",
        "The same file lies several times in one split: it counts several times in training or in the scores.",
        "Remove the copies; if they bear different identities, find the right one first.",
    ),
    "duplicates-across-splits": Meaning(
        "warning",
        "The same file lies in several splits: a query that finds itself, or was trained on, lifts the scores.",
        "Keep each image in one split.",
    ),
    "unreadable-pictures": Meaning(
        "warning",
        "These files cannot be decoded and are left out.",
        "Save or download them again, or remove them; types that are not read are converted to JPEG or PNG.",
        MANY_SAMPLES,
    ),
    "cut-off-pictures": Meaning(
        "warning",
        "The end of these JPEG files is missing. They are read as browsers show them: what is missing is grey.",
        "Copy or download them again, or remove them.",
    ),
    "animated-pictures": Meaning(
        "info",
        "These files hold several images, of which the first is read.",
        "Save the others as files of their own.",
    ),
    "look-alike-labels": Meaning(
        "warning",
        "These labels differ by case, width or invisible characters alone, and count as different people or cameras.",
        "Give one person one label; if they are different, label them so that it can be seen.",
    ),
    "refused-labels": Meaning(
        "warning",
        "The labels of these images cannot be used: they mean that nothing is known, or no address can carry them. "
        "The images are left out.",
        "Rename them: any text but words like None, `.` and `..`, backslashes and control characters.",
    ),
    "unknown-words": Meaning(
        "info",
        "These words of the table were taken to mean that nothing is known.",
        "None, if that is what they mean.",
        MANY_SAMPLES,
    ),
    "archive-names": Meaning(
        "info",
        "The archive does not say how its names are encoded; they were read as told here.",
        "If names look wrong, upload it again and say `encoding`, or pack it with names in UTF-8.",
    ),
    "unread-folders": Meaning(
        "info",
        "These folders hold files that the format has no use for; nothing in them was read.",
        "None, if that is intended; else declare a `layout` that names them.",
        MANY_SAMPLES,
    ),
    "changed-files": Meaning(
        "warning",
        "These files are not what they were when the data set was read.",
        "Put them back, or POST /datasets/{id}/rescan to read them as they are.",
        MANY_SAMPLES,
    ),
    "left-out": Meaning("info", "The format's protocol has no use for these images.", "None needed."),
    "unmatched-names": Meaning(
        "warning",
        "These names do not fit the format and are left out.",
        "Rename or remove them, or name another format when registering.",
    ),
    "incomplete-rows": Meaning(
        "warning", "These rows of the manifest have no path or no identity and are left out.", "Fill them in."
    ),
    "escaping-links": Meaning(
        "warning",
        "These lead out of the data set's folder, by a link or by `..`, and are left out.",
        "Copy the files into the folder, or register the folder that holds them.",
    ),
    "withdrawn": Meaning(
        "warning",
        "The authors have withdrawn this data set: the people in it had not agreed to be filmed.",
        "Use another one, and publish nothing measured on this.",
    ),
    "empty-split": Meaning(
        "info",
        "These splits have no images. Training needs train; evaluation needs query and gallery.",
        "None, if that is intended.",
    ),
    "unused-columns": Meaning(
        "info",
        "These columns of the manifest are not used.",
        "Check their spelling: path, identity, split, camera, captured_at, frame; or declare `columns`.",
    ),
    "junk-dropped": Meaning("info", "The format marks these images as junk; they are left out.", "None needed."),
    "distractors": Meaning(
        "info", "Gallery images of identity 0000 match no query; they only make the search harder.", "None needed."
    ),
}
