"""The one family of errors that a client sees: RFC 9457 problems, and the table of their kinds.

A kind is a slug with its status, title and explanation; `GET /problems/{slug}` serves the table. The same object stands
in `error` of a failed job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from reid_core.errors import CoreError, Fault, SettingsError
from service.schemas import ProblemAnswer, WrongValue


@dataclass(frozen=True, slots=True)
class ProblemKind:
    status: int
    title: str
    explanation: str


KINDS: dict[str, ProblemKind] = {
    "malformed-request": ProblemKind(400, "The request cannot be read", "The body is not what its type promises."),
    "invalid-cursor": ProblemKind(
        400, "Unknown cursor", "A cursor is `next_cursor` of an earlier answer of the same list, unchanged."
    ),
    "unauthenticated": ProblemKind(
        401,
        "An API key is needed",
        "Send `Authorization: Bearer <key>` or `X-API-Key: <key>` with a key that is valid.",
    ),
    "missing-scope": ProblemKind(
        403, "The key lacks a scope", "The key is valid but was not made for this; an admin can make another one."
    ),
    "not-found": ProblemKind(404, "Not found", "There is nothing under this address or name, or it is not yours."),
    "method-not-allowed": ProblemKind(405, "Method not allowed", "The address exists; `Allow` names what it takes."),
    "too-slow": ProblemKind(408, "The request came too slowly", "Send it again over a better connection."),
    "wrong-state": ProblemKind(409, "Not in this state", "The thing exists, but its state does not allow this now."),
    "name-taken": ProblemKind(409, "The name is taken", "Names are unique; choose another or delete the other one."),
    "in-use": ProblemKind(409, "Still in use", "Something else needs it; the detail names what."),
    "files-differ": ProblemKind(
        409, "Other files lie there", "The files are not those that were registered; the detail names them."
    ),
    "no-index": ProblemKind(409, "Nothing to search yet", "The gallery has no index; add images or wait for its job."),
    "request-in-progress": ProblemKind(
        409, "The same request is running", "An equal request with this Idempotency-Key has not been answered yet."
    ),
    "erased": ProblemKind(410, "Erased", "It was here and has been erased on request; it does not come back."),
    "too-large": ProblemKind(413, "Too large", "A limit is exceeded; the detail names it and its setting."),
    "unsupported-media": ProblemKind(415, "Not a type we accept", "The file or body is of another type than needed."),
    "invalid-picture": ProblemKind(
        415, "Not an image we can read", "The file is damaged, or of a type we do not decode."
    ),
    "range-not-satisfiable": ProblemKind(416, "No such part", "The file has no part like the one `Range` asks for."),
    "invalid-request": ProblemKind(
        422, "A value is impossible", "`errors` points at each wrong value; see `pointer` for where it stands."
    ),
    "invalid-settings": ProblemKind(422, "A setting is impossible", "`errors` points at each wrong setting."),
    "invalid-dataset": ProblemKind(422, "The data set cannot be used", "The detail says what is missing for this use."),
    "path-outside-data-roots": ProblemKind(
        422, "The path is outside the data roots", "Folders are registered from under `REID_DATA_ROOTS` only."
    ),
    "idempotency-key-reused": ProblemKind(
        422, "The Idempotency-Key belongs to another request", "Use a new key for every new request."
    ),
    "unknown-method": ProblemKind(422, "Unknown training method", "`GET /methods` lists the methods there are."),
    "weights-unusable": ProblemKind(422, "The weights cannot be used", "The file is missing or fits another network."),
    "training-diverged": ProblemKind(422, "The training diverged", "A loss or gradient stopped being a finite number."),
    "out-of-memory": ProblemKind(422, "Out of device memory", "The batch does not fit; the hint says what to lower."),
    "export-failed": ProblemKind(
        422,
        "The model cannot be exported",
        "The other runtime lacks something or gives other results; nothing is kept.",
    ),
    "unprocessable": ProblemKind(422, "This cannot be done", "The request is well-formed, but impossible as asked."),
    "job-crashed": ProblemKind(
        500, "The job's process was lost", "It ended without a word; its log says how far it got."
    ),
    "too-many-requests": ProblemKind(429, "Too many requests", "Try again after `Retry-After` seconds."),
    "internal": ProblemKind(500, "Something failed on our side", "The log has the details under `request_id`."),
    "index-corrupt": ProblemKind(500, "A stored file is damaged", "Rebuild it, e.g. with an `index` job."),
    "unavailable": ProblemKind(503, "Not available just now", "Try again after `Retry-After` seconds."),
    "disk-full": ProblemKind(507, "Not enough disk space", "Free some space, or lower `REID_MIN_FREE_BYTES`."),
}


class Problem(Exception):
    """A fault that a client is told of: `detail` says what happened, `hint` the way out.

    `slug` is a key of KINDS, which gives status and title. Each of `errors` points at one wrong value: a JSON pointer
    into the body (`/settings/image/height`), or `/query/<name>`, `/path/<name>`, `/header/<name>`. `near` are names
    like the one that there is not, told only to those who may read them.
    """

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        hint: str = "",
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        near: Sequence[str] = (),
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.kind = KINDS[slug]
        self.detail = detail
        self.hint = hint
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.near = tuple(near)

    @property
    def status(self) -> int:
        return self.kind.status

    def answer(self, *, instance: str = "", request_id: str | None = None, may_read: bool = False) -> ProblemAnswer:
        """The problem as clients see it; `instance` is the path that was asked for, or that of the job."""
        hint = self.hint or self.kind.explanation
        if self.near and may_read:
            hint = f"Did you mean {' or '.join(map(repr, self.near))}? {hint}"
        return ProblemAnswer(
            type=f"/problems/{self.slug}",
            title=self.kind.title,
            status=self.status,
            detail=self.detail,
            instance=instance,
            request_id=request_id,
            hint=hint,
            errors=[WrongValue(pointer=fault.pointer, code=fault.code, message=fault.message) for fault in self.errors],
        )

    def as_json(self, *, instance: str = "", request_id: str | None = None, may_read: bool = False) -> dict[str, Any]:
        """The problem object as a row keeps it."""
        return self.answer(instance=instance, request_id=request_id, may_read=may_read).model_dump()


def problem_from_core(error: CoreError, *, below: str = "") -> Problem:
    """The problem that a core error is; `below` is where the settings stand in the body (`/settings`)."""
    faults = error.faults if isinstance(error, SettingsError) else ()
    errors = [Fault(below + fault.pointer, fault.code, fault.message) for fault in faults]
    return Problem(error.slug, error.detail, hint=error.hint, errors=errors)


def problem_at(pointer: str, error: CoreError) -> Problem:
    """The problem that a core error of one value is."""
    return Problem(error.slug, error.detail, hint=error.hint, errors=[Fault(pointer, error.slug, error.detail)])


def invalid_request(pointer: str, code: str, message: str, *, hint: str = "") -> Problem:
    """The 422 problem of one wrong value; `message` is a clause that becomes the detail's sentence."""
    return Problem("invalid-request", sentence(message), hint=hint, errors=[Fault(pointer, code, message)])


def sentence(clause: str) -> str:
    """The clause with a capital letter and a full stop."""
    return f"{clause[:1].upper()}{clause[1:]}" + ("" if clause.endswith((".", "!", "?")) else ".")


def not_found(what: str, key: str, *, known: Sequence[str] = (), names: Sequence[str] = ()) -> Problem:
    """404 for the `what` ("model") called `key`, with the known names where listing them helps, or those like `key`."""
    hint = f"Known: {', '.join(known)}." if known else ""
    near = get_close_matches(key, [*known, *names], n=3)
    return Problem("not-found", f"There is no {what} {key!r}.", hint=hint, near=near)
