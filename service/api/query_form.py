"""Forms that ask by images: values in the form or in the address, and files within their limits."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from starlette.datastructures import QueryParams

from service.api.forms import Form, too_many_files
from service.errors import invalid_request
from service.settings import Settings


def joined(address: QueryParams, body: Any, lists: Collection[str]) -> Any:
    """The body's values and those in the address, where fields of `lists` are lists; 422 for what stands in both."""
    if not isinstance(body, dict):
        return body
    twice = sorted(body.keys() & address.keys())
    if twice:
        message = f"{twice[0]!r} stands in the address and in the body"
        raise invalid_request(f"/{twice[0]}", "given-twice", message)
    return {name: _only(name, address.getlist(name), lists) for name in address} | body


def fields_of(form: Form, lists: Collection[str]) -> dict[str, Any]:
    """The texts of the form by the names of their fields."""
    return {name: _only(name, form.values(name), lists) for name in form.names if form.values(name)}


def admit_images(settings: Settings, names: Collection[str]) -> Callable[[str, int], None]:
    """Lets files in under these names, as many together as a query may have."""

    def admit(name: str, number: int) -> None:
        if name not in names:
            known = " or ".join(f"`{one}`" for one in names)
            raise invalid_request(
                f"/{name}", "unexpected", f"{name!r} is a file; images are sent as files called {known}"
            )
        if number > settings.max_query_images:
            raise too_many_files("REID_MAX_QUERY_IMAGES", settings.max_query_images)

    return admit


def read_files(form: Form, name: str, settings: Settings) -> list[bytes]:
    """The files of that name, read one byte beyond what is allowed at most."""
    return [file.read(settings.max_picture_bytes + 1) for _, file in form.open_files(name)]


def _only(name: str, values: list[str], lists: Collection[str]) -> Any:
    """All values of a field that is a list, else the only one; two of them stay a list, which no other field takes."""
    return values if name in lists or len(values) > 1 else values[0]
