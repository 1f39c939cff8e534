"""Forms are read within limits: of text, of fields, of headers; whatever is refused, the problem says the limit."""

from __future__ import annotations

import httpx
import pytest

from service.settings import Settings

TYPE = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_json_bytes": 3000, "max_form_fields": 20})


@pytest.mark.parametrize("path", ["/search", "/galleries/hall/images", "/datasets"])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (21 * ['Content-Disposition: form-data; name="a"\r\n\r\n1'], "REID_MAX_FORM_FIELDS = 20 fields"),
        (2 * ['Content-Disposition: form-data; name="a"\r\n\r\n' + 1500 * "1"], "REID_MAX_JSON_BYTES = 3,000 bytes"),
        (2 * [f'Content-Disposition: form-data; name="{1600 * "a"}"\r\n\r\n'], "REID_MAX_JSON_BYTES = 3,000 bytes"),
        ([f'Content-Disposition: form-data; name="a"; x={9000 * "x"}\r\n\r\n'], "8,192 bytes of headers"),
        (['Content-Disposition: form-data; name="a"\r\n' + 999 * "X-A: 123456\r\n" + "\r\n"], "8,192 bytes of headers"),
    ],
    ids=["fields", "text", "names", "long header", "many headers"],
)
def test_a_form_beyond_a_limit_is_413(client: httpx.Client, path: str, parts: list[str], expected: str) -> None:
    body = "".join(f"--b\r\n{part}\r\n" for part in parts) + "--b--\r\n"
    answer = client.post(path, content=body.encode(), headers=TYPE)
    assert (answer.status_code, answer.json()["type"]) == (413, "/problems/too-large")
    assert expected in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/search", "/galleries/hall/images", "/datasets"])
@pytest.mark.parametrize(
    "body",
    [
        b"no form at all",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1',
        b"--b\r\nContent-Type: text/plain\r\n\r\n1\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--b--\r\n',
    ],
    ids=["no form", "cut off", "no name", "not UTF-8"],
)
def test_what_is_no_form_is_400(client: httpx.Client, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers=TYPE)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/malformed-request")
