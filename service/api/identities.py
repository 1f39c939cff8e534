"""The persons of galleries over the API: look through, rename, merge."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.api.dependencies import DatabaseDep, PageDep, prefix_of, require
from service.api.pagination import cursor_after, start_of
from service.auth import Caller
from service.db.lookup import find
from service.db.tables import Gallery, GalleryImage
from service.galleries.identities import find_identity, list_identities, rename_identity
from service.galleries.identity_schemas import IdentityAnswer, NewIdentity, RenameAnswer, RenameBody
from service.schemas import LabelFilter, Listing

router = APIRouter(prefix="/galleries", tags=["galleries"])

Reader = Annotated[Caller, require("read")]
Writer = Annotated[Caller, require("write")]

_COLUMN = GalleryImage.identity


@router.get("/{gallery_id}/identities")
def list_gallery_identities(
    gallery_id: str,
    request: Request,
    database: DatabaseDep,
    page: PageDep,
    _caller: Reader,
    camera: Annotated[
        LabelFilter | None, Query(description="persons seen by it; empty text: with an image without a camera")
    ] = None,
    prefix: Annotated[LabelFilter | None, Query(description="persons whose label begins so")] = None,
) -> Listing[IdentityAnswer]:
    """The gallery's persons by label; images without an identity, or of `0000`, show nobody."""
    after, links = start_of(page, _COLUMN), prefix_of(request)
    with database.read() as session:
        gallery = find(session, Gallery, gallery_id)
        found = list_identities(session, gallery.id, after=after, limit=page.limit + 1, camera=camera, prefix=prefix)
    persons = found[: page.limit]
    next_cursor = cursor_after(persons[-1].label, _COLUMN) if len(found) > page.limit else None
    return Listing(items=[IdentityAnswer.of(person, links) for person in persons], next_cursor=next_cursor)


@router.get("/{gallery_id}/identities/{identity:path}")
def read_identity(
    gallery_id: str, identity: LabelFilter, request: Request, database: DatabaseDep, _caller: Reader
) -> IdentityAnswer:
    """A person by its label."""
    with database.read() as session:
        return IdentityAnswer.of(find_identity(session, gallery_id, identity), prefix_of(request))


@router.patch("/{gallery_id}/identities/{identity:path}")
def rename(
    gallery_id: str, identity: LabelFilter, body: NewIdentity, database: DatabaseDep, caller: Writer
) -> RenameAnswer:
    """Rename a person; where the gallery has the new label already, the two become one."""
    renaming = rename_identity(database, gallery_id, identity, body.identity, key_id=caller.key_id)
    return RenameAnswer.of(body.identity, renaming)


@router.post("/{gallery_id}/identities/rename")
def rename_by_body(gallery_id: str, body: RenameBody, database: DatabaseDep, caller: Writer) -> RenameAnswer:
    """Rename a person, as `PATCH`, whose address ends in proxies' logs and takes not every label."""
    renaming = rename_identity(database, gallery_id, body.identity, body.new_identity, key_id=caller.key_id)
    return RenameAnswer.of(body.new_identity, renaming)
