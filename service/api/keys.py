"""API keys over the API, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from sqlalchemy import select

from service.api.dependencies import DatabaseDep, PageDep, require
from service.api.openapi import problems
from service.api.pagination import list_page
from service.auth import Caller
from service.clock import rfc3339, utc_now
from service.db import audit
from service.db.tables import ApiKey
from service.errors import invalid_request
from service.keys import lifecycle as keys
from service.keys.schemas import KeyAnswer, KeyBody, NewKeyAnswer
from service.schemas import Listing

router = APIRouter(prefix="/api-keys", tags=["keys"])

Admin = Annotated[Caller, require("admin")]


@router.post("", status_code=201)
def create_api_key(body: KeyBody, database: DatabaseDep, caller: Admin, response: Response) -> NewKeyAnswer:
    """Make a key. This answer is the only place where it is ever shown."""
    if body.expires_at and body.expires_at <= utc_now():
        message = f"expires_at {rfc3339(body.expires_at)} is past already"
        raise invalid_request("/expires_at", "past", message)
    with database.write() as session:
        row, key = keys.create_key(session, name=body.name, scopes=body.scopes, expires_at=body.expires_at)
        audit.record(session, key_id=caller.key_id, action="api_key.create", target=row.id, scopes=row.scopes)
    response.headers["Location"] = f"/api-keys/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return NewKeyAnswer(**dict(KeyAnswer.of(row)), key=key)


@router.get("")
def list_api_keys(database: DatabaseDep, page: PageDep, _caller: Admin) -> Listing[KeyAnswer]:
    """Every key, without the secret itself."""
    with database.read() as session:
        return list_page(session, select(ApiKey), ApiKey.id, page, answer_of=KeyAnswer.of)


@router.get("/{key_id}")
def read_api_key(key_id: str, database: DatabaseDep, _caller: Admin) -> KeyAnswer:
    """One key, by id or name, without the secret itself."""
    with database.read() as session:
        return KeyAnswer.of(keys.find_key(session, key_id))


@router.delete("/{key_id}", status_code=204, responses=problems(409))
def delete_api_key(key_id: str, database: DatabaseDep, caller: Admin) -> None:
    """Delete a key, by id or name; it stops working at once. The last admin key stays."""
    with database.write() as session:
        row = keys.delete_key(session, key_id)
        audit.record(session, key_id=caller.key_id, action="api_key.delete", target=row.id)
