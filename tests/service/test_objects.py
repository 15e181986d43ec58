"""Objects over HTTP: put, got in part or whole, signed for, and another tenant's never."""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import pytest
from tests.service.live import ANSWER_TIMEOUT_S, CONFIG, LiveService, Tenant, answered, refused, serving

from casemate.kernel.processes import process_tree
from casemate.object_limits import OBJECT_OVERHEAD_BYTES

if TYPE_CHECKING:
    import httpx2

DATA: Final = random.Random(7).randbytes(3 * 1024 * 1024 + 11)
MARK: Final = b"nobody reads this on the disk "


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, slowness: float) -> Iterator[LiveService]:
    """A service that takes small objects alone."""
    config = CONFIG + '\n[objects]\nobject_max = "20Mi"\ntenant_max = "40Mi"\n'
    with serving(tmp_path_factory.mktemp("small") / "data", config=config, slowness=slowness) as started:
        yield started


def digest_header(data: bytes) -> dict[str, str]:
    text = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return {"Repr-Digest": f"sha-256=:{text}:"}


def put(tenant: Tenant, key: str, data: bytes, **headers: str) -> dict[str, Any]:
    found: dict[str, Any] = answered(tenant.http.put(f"/v1/objects/{key}", content=data, headers=headers), 201)
    return found


def listed(tenant: Tenant, prefix: str = "", **query: Any) -> list[str]:
    found = answered(tenant.http.get("/v1/objects", params={"prefix": prefix, **query}))
    return [item["key"] for item in found["items"]]


def test_s2_72_s2_23_what_was_put_is_got_byte_for_byte(service: LiveService) -> None:
    tenant = service.tenant()
    made = put(tenant, "shared/data.bin", DATA)
    assert made["digest"] == hashlib.sha256(DATA).hexdigest()
    assert made["size_bytes"] == len(DATA)
    response = tenant.http.get("/v1/objects/shared/data.bin")
    assert response.content == DATA
    assert response.headers["repr-digest"] == digest_header(DATA)["Repr-Digest"]
    assert response.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in response.headers["content-security-policy"]
    head = tenant.http.head("/v1/objects/shared/data.bin")
    assert int(head.headers["content-length"]) == len(DATA)
    assert tenant.http.delete("/v1/objects/shared/data.bin").status_code == 204
    refused(tenant.http.get("/v1/objects/shared/data.bin"), 404, "not_found")
    refused(tenant.http.delete("/v1/objects/shared/data.bin"), 404, "not_found")


@pytest.mark.parametrize(
    ("asked", "status", "span"),
    [
        ("bytes=0-0", 206, (0, 1)),
        ("bytes=100-", 206, (100, len(DATA))),
        ("bytes=70000-2000000", 206, (70_000, 2_000_001)),
        ("bytes=-5", 206, (len(DATA) - 5, len(DATA))),
        (f"bytes=0-{10**12}", 206, (0, len(DATA))),
        ("bytes=5-1", 200, (0, len(DATA))),
        ("lines=1-2", 200, (0, len(DATA))),
        ("bytes=0-1,4-5", 200, (0, len(DATA))),
        (f"bytes={len(DATA)}-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=-", 200, (0, len(DATA))),
        ("bytes=--5", 200, (0, len(DATA))),
        ("bytes=0x10-", 200, (0, len(DATA))),
        ("bytes=٣-", 200, (0, len(DATA))),
        (f"bytes={'9' * 18}-", 416, None),
        (f"bytes={'9' * 40}-", 200, (0, len(DATA))),
        (f"bytes=-{'9' * 18}", 206, (0, len(DATA))),
        (f"bytes={','.join(['0-'] * 2000)}", 200, (0, len(DATA))),
    ],
)
def test_s2_72_a_part_is_got_by_its_place(
    tenant: Tenant, asked: str, status: int, span: tuple[int, int] | None
) -> None:
    put(tenant, "shared/parts.bin", DATA)
    response = tenant.http.get("/v1/objects/shared/parts.bin", headers=[(b"Range", asked.encode())])
    assert response.status_code == status
    if span is None:
        assert response.headers["content-range"] == f"bytes */{len(DATA)}"
    else:
        assert response.content == DATA[slice(*span)]


def test_s2_72_a_download_goes_on_only_in_the_object_in_which_it_began(tenant: Tenant) -> None:
    put(tenant, "shared/changing", b"before")
    tag = tenant.http.head("/v1/objects/shared/changing").headers["etag"]
    put(tenant, "shared/changing", b"another")
    headers = {"Range": "bytes=3-", "If-Range": tag}
    assert tenant.http.get("/v1/objects/shared/changing", headers=headers).content == b"another"


def test_s2_72_what_comes_is_checked_by_its_digest(tenant: Tenant) -> None:
    put(tenant, "shared/checked", b"right", **digest_header(b"right"))
    wrong = tenant.http.put("/v1/objects/shared/checked", content=b"wrong", headers=digest_header(b"other"))
    refused(wrong, 422, "invalid_input", "digest")
    refused(tenant.http.put("/v1/objects/shared/checked", content=b"x", headers={"Repr-Digest": "md5=:x:"}), 422)
    assert tenant.http.get("/v1/objects/shared/checked").content == b"right"


def test_s2_72_an_object_may_be_larger_than_any_other_request(small: LiveService) -> None:
    tenant = small.tenant()
    data = DATA * 5
    assert len(data) > 8 * 1024 * 1024
    assert put(tenant, "shared/large", data)["size_bytes"] == len(data)
    refused(tenant.http.put("/v1/objects/shared/larger", content=b"x" * (20 * 1024 * 1024 + 1)), 413)
    pieces = (b"x" * 65_536 for _ in range(330))
    refused(tenant.http.put("/v1/objects/shared/larger", content=pieces), 413)
    put(tenant, "shared/large2", data)
    refused(tenant.http.put("/v1/objects/shared/large3", content=data), 429, "too_many_requests")
    assert tenant.http.delete("/v1/objects/shared/large").status_code == 204
    for _ in range(3):  # what is replaced makes room
        put(tenant, "shared/large2", data)
    put(tenant, "shared/large3", data)
    assert listed(tenant) == ["shared/large2", "shared/large3"]


def test_s9_what_two_uploads_replace_at_once_makes_room_once(small: LiveService) -> None:
    tenant = small.tenant()
    megabyte = b"x" * 1024 * 1024
    put(tenant, "shared/large", 18 * megabyte)
    put(tenant, "shared/other", 18 * megabyte)
    begun, go_on = threading.Barrier(5), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"x"
        begun.wait(ANSWER_TIMEOUT_S)
        go_on.wait(ANSWER_TIMEOUT_S)
        yield b"y"

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        uploads = [
            pool.submit(tenant.http.put, "/v1/objects/shared/large", content=pieces(), timeout=ANSWER_TIMEOUT_S)
            for _ in range(4)
        ]
        begun.wait(ANSWER_TIMEOUT_S)
        go_on.set()
        assert [answered(each.result(), 201)["size_bytes"] for each in uploads] == [2] * 4
    put(tenant, "shared/third", 18 * megabyte)
    refused(tenant.http.put("/v1/objects/shared/fourth", content=18 * megabyte), 429, "too_many_requests")


def test_s9_empty_objects_take_room_too(small: LiveService) -> None:
    tenant = small.tenant()
    put(tenant, "shared/large", b"x" * (20 * 1024 * 1024))
    put(tenant, "shared/large2", b"x" * (20 * 1024 * 1024 - 4 * OBJECT_OVERHEAD_BYTES))
    put(tenant, "shared/empty", b"")
    put(tenant, "shared/empty", b"")
    put(tenant, "shared/empty2", b"")
    refused(tenant.http.put("/v1/objects/shared/empty3", content=b""), 429, "too_many_requests")
    assert tenant.http.delete("/v1/objects/shared/empty").status_code == 204
    put(tenant, "shared/empty3", b"")


def test_an_upload_that_stops_is_no_object(tenant: Tenant, service: LiveService) -> None:
    parts = urlsplit(service.url)
    assert parts.hostname
    with socket.create_connection((parts.hostname, parts.port or 0)) as connection:
        head = (
            f"PUT /v1/objects/shared/stopped HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.key}\r\n"
            "Content-Length: 1000000\r\n\r\n"
        )
        connection.sendall(head.encode() + b"x" * 1000)
    assert "shared/stopped" not in listed(tenant, "shared/stopped")
    refused(tenant.http.get("/v1/objects/shared/stopped"), 404)


def test_s2_75_who_has_no_key_is_told_so_before_the_body_comes(service: LiveService) -> None:
    with service.client() as http:
        response = http.put("/v1/objects/shared/x", content=b"x" * 100_000, headers={"Expect": "100-continue"})
        refused(response, 401, "unauthenticated")


def test_objects_are_listed_by_their_keys_page_by_page(service: LiveService) -> None:
    tenant = service.tenant()
    named = sorted(f"shared/{name}" for name in ("a", "b c", "d/e", "ü", "z%2f", "50%"))
    for key in named:
        put(tenant, quote(key), b"x")
    assert listed(tenant) == named
    found, cursor = [], None
    while True:
        query: dict[str, Any] = {"limit": 2, "prefix": "shared/", **({"cursor": cursor} if cursor else {})}
        page = answered(tenant.http.get("/v1/objects", params=query))
        found += [item["key"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["items"]) == 2
    assert found == named
    refused(tenant.http.get("/v1/objects", params={"cursor": "%%%"}), 422, field="cursor")


HOSTILE: Final = [
    "shared/../../ten_b/shared/x",
    "shared/%2e%2e/%2e%2e/etc/passwd",
    "shared/..%2f..%2fx",
    "shared//x",
    "shared/",
    "shared/a%00b",
    "shared/a%0ab",
    "shared/%e2%80%aex",
    "%2fetc/passwd",
    "uploads/upl_aaaaaaaaaaaaaaaaaaaaaaaaaa/about",
    "jobs/../shared/x",
    "jobs/x/secrets/y",
    "other/x",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_f24_names_that_lead_elsewhere_are_refused(tenant: Tenant, service: LiveService, path: str) -> None:
    """Sent as they are written: a client of good manners would tidy them up."""
    parts = urlsplit(service.url)
    assert parts.hostname
    for method in ("GET", "PUT", "DELETE"):
        with socket.create_connection((parts.hostname, parts.port or 0), timeout=30) as connection:
            head = (
                f"{method} /v1/objects/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {tenant.key}\r\n"
                "Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
            connection.sendall(head.encode())
            status = connection.makefile("rb").readline().split()[1]
        assert status in {b"404", b"422"}, (method, path, status)


def test_s2_75_f24_no_tenant_reaches_what_is_anothers(service: LiveService) -> None:
    mine, theirs = service.tenant(), service.tenant()
    put(theirs, "shared/secret.txt", MARK)
    put(theirs, "templates/secret.txt", MARK)
    guesses = [
        "shared/secret.txt",
        "templates/secret.txt",
        f"{theirs.id}/shared/secret.txt",
        f"../{theirs.id}/shared/secret.txt",
    ]
    for guess in guesses:
        assert mine.http.get(f"/v1/objects/{guess}").status_code in {404, 422}
        assert mine.http.head(f"/v1/objects/{guess}").status_code in {404, 422}
        assert mine.http.delete(f"/v1/objects/{guess}").status_code in {404, 422}
    assert listed(mine) == listed(mine, theirs.id) == listed(mine, f"../{theirs.id}") == []
    assert theirs.http.get("/v1/objects/shared/secret.txt").content == MARK


def test_s2_27_on_the_disk_neither_name_nor_content_is_to_be_read(service: LiveService) -> None:
    tenant = service.tenant()
    put(tenant, "shared/name-of-a-person.txt", MARK * 5000)
    found = subprocess.run(
        ["grep", "-rlaE", "nobody reads this|name-of-a-person", str(service.data / "objects")],
        capture_output=True,
        check=False,
    )
    assert found.stdout == b""
    assert [path for path in (service.data / "objects").rglob("*") if path.stat().st_mode & 0o077] == []
    assert list((service.data / "objects" / "new").iterdir()) == []


def test_only_a_job_writes_what_it_puts_out(tenant: Tenant) -> None:
    for area in ("output", "logs"):
        refused(tenant.http.put(f"/v1/objects/jobs/x/{area}/y", content=b""), 422, field="key")
        sign = {"key": f"jobs/x/{area}/y", "method": "PUT"}
        refused(tenant.http.post("/v1/objects/sign", json=sign), 422, field="key")


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("objects:read", {"GET", "HEAD"}),
        ("objects:write", {"PUT", "DELETE"}),
        ("objects:sign", set()),
        ("executions:*", set()),
    ],
)
def test_s2_75_a_key_does_what_its_scopes_say(service: LiveService, scope: str, allowed: set[str]) -> None:
    tenant = service.tenant()
    put(tenant, "shared/x", b"x")
    with limited(service, tenant, scope) as http:
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            response = http.request(method, "/v1/objects/shared/x")
            assert (response.status_code == 403) != (method in allowed), (method, response.status_code)


def limited(service: LiveService, tenant: Tenant, *allow: str) -> httpx2.Client:
    body = {"name": "limited", "scopes": {"allow": list(allow)}}
    made = answered(tenant.http.post("/v1/keys", json=body), 201)
    return service.client(made["key"])


# Signed addresses ---------------------------------------------------------------------------------


def signed(tenant: Tenant, key: str, method: str = "GET", **more: Any) -> str:
    body = {"key": key, "method": method, **more}
    found: str = answered(tenant.http.post("/v1/objects/sign", json=body), 201)["url"]
    return found


def test_s2_24_s2_73_an_address_gets_its_object_without_a_key(service: LiveService) -> None:
    by_anybody = service.client(Connection="close")  # one for each request
    tenant = service.tenant()
    put(tenant, "shared/report.txt", b"the report")
    url = signed(tenant, "shared/report.txt")
    assert by_anybody.get(url).content == b"the report"
    assert by_anybody.get(url, headers={"Range": "bytes=4-"}).content == b"report"
    assert by_anybody.head(url).headers["content-length"] == "10"
    refused(by_anybody.put(url, content=b"x"), 403, "address_refused")
    assert by_anybody.delete(url).status_code == 405
    assert tenant.http.get("/v1/objects/shared/report.txt").content == b"the report"


def test_s2_24_an_address_puts_one_object_of_a_size(service: LiveService) -> None:
    by_anybody = service.client(Connection="close")  # one for each request
    tenant = service.tenant()
    url = signed(tenant, "shared/coming", "PUT", size_max_bytes=10)
    assert answered(by_anybody.put(url, content=b"0123456789"), 201)["key"] == "shared/coming"
    refused(by_anybody.put(url, content=b"0123456789a"), 422, field="body")
    refused(by_anybody.get(url), 403, "address_refused")
    assert tenant.http.get("/v1/objects/shared/coming").content == b"0123456789"


def test_s2_24_an_address_is_for_its_method_whatever_else_is_tried(service: LiveService) -> None:
    by_anybody = service.client(Connection="close")  # one for each request
    tenant = service.tenant()
    put(tenant, "shared/kept", b"kept")
    url = signed(tenant, "shared/kept", "PUT", size_max_bytes=10)
    for method in ("GET", "HEAD"):
        assert by_anybody.request(method, url).status_code == 403
    refused(by_anybody.put(signed(tenant, "shared/kept"), content=b"x"), 403, "address_refused")
    for method in ("POST", "PATCH", "DELETE", "OPTIONS", "TRACE"):
        overridden = {"X-HTTP-Method-Override": "PUT", "X-HTTP-Method": "PUT"}
        assert by_anybody.request(method, url, headers=overridden).status_code in {400, 404, 405}
    token = url.rpartition("/")[2]
    for path in ("/v1/objects/shared/kept", "/v1/objects", f"/v1/objects/shared/kept?token={token}"):
        assert by_anybody.get(path, headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert tenant.http.get("/v1/objects/shared/kept").content == b"kept"


def test_s2_24_an_altered_address_is_refused(service: LiveService) -> None:
    by_anybody = service.client(Connection="close")  # one for each request
    tenant = service.tenant()
    put(tenant, "shared/a", b"a")
    url = signed(tenant, "shared/a")
    start, _, token = url.rpartition("/")
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        refused(by_anybody.get(f"{start}/{token[:place]}{other}{token[place + 1 :]}"), 403, "address_refused")
    for changed in (token[:-1], token + "A", token + "=", "x", token.swapcase()):
        refused(by_anybody.get(f"{start}/{changed}"), 403, "address_refused")
    elsewhere = by_anybody.get(f"{start}/{token}/../../objects/shared/a")
    assert elsewhere.status_code in {401, 403, 404}


def test_s2_24_an_address_expires(service: LiveService) -> None:
    by_anybody = service.client(Connection="close")  # one for each request
    tenant = service.tenant()
    put(tenant, "shared/a", b"a")
    url = signed(tenant, "shared/a", expires_in_s=0.001)
    problem = refused(by_anybody.get(url), 403, "address_refused")
    assert "expired" in problem["message"]
    refused(tenant.http.post("/v1/objects/sign", json={"key": "shared/a", "expires_in_s": 10**7}), 422)


def test_s2_24_an_address_ends_with_the_key_that_has_given_it(service: LiveService) -> None:
    by_anybody = service.client(Connection="close")  # one for each request
    tenant = service.tenant()
    put(tenant, "shared/a", b"a")
    body = {"name": "giver", "scopes": {"allow": ["objects:*"]}}
    made = answered(tenant.http.post("/v1/keys", json=body), 201)
    with service.client(made["key"]) as http:
        url = answered(http.post("/v1/objects/sign", json={"key": "shared/a"}), 201)["url"]
        assert by_anybody.get(url).content == b"a"
        answered(tenant.http.post(f"/v1/keys/{made['id']}/rotate", json={}), 201)
        refused(by_anybody.get(url), 403, "address_refused")


def test_s2_75_a_key_signs_for_what_it_may_do_itself(service: LiveService) -> None:
    tenant = service.tenant()
    with limited(service, tenant, "objects:sign", "objects:read") as http:
        refused(http.post("/v1/objects/sign", json={"key": "shared/a", "method": "PUT"}), 403, "permission_denied")
        answered(http.post("/v1/objects/sign", json={"key": "shared/a"}), 201)
    with limited(service, tenant, "objects:read") as http:
        refused(http.post("/v1/objects/sign", json={"key": "shared/a"}), 403, "permission_denied")


def test_s2_24_addresses_end_when_the_secret_that_signs_is_replaced(tmp_path: Path, slowness: float) -> None:
    with serving(tmp_path / "data", slowness=slowness) as service:
        tenant = service.tenant()
        answered(tenant.http.put("/v1/objects/shared/x", content=b"x"), 201)
        urls = [answered(tenant.http.post("/v1/objects/sign", json={"key": "shared/x"}), 201)["url"]]
        anybody = service.client()
        assert anybody.get(urls[0]).content == b"x"
        refused(tenant.http.get("/v1/signing"), 404)
        refused(tenant.http.post("/v1/signing/rotate", json={"generation": "x"}), 404)
        old = answered(service.operator.get("/v1/signing"))
        new = answered(service.operator.post("/v1/signing/rotate", json=old))
        assert new != old
        refused(anybody.get(urls[0]), 403, "address_refused")
        refused(service.operator.post("/v1/signing/rotate", json=old), 409)
        assert answered(service.operator.get("/v1/signing")) == new
        urls.append(answered(tenant.http.post("/v1/objects/sign", json={"key": "shared/x"}), 201)["url"])
        assert anybody.get(urls[1]).content == b"x"
        found = answered(service.operator.get("/v1/audit", params={"action": "signing."}))["items"]
        assert [(each["action"], each["detail"]) for each in found][:2] == [
            ("signing.rotate", "409"),
            ("signing.rotate", "200"),
        ]


def test_an_address_at_the_store_itself_needs_one(tenant: Tenant) -> None:
    refused(tenant.http.post("/v1/objects/sign", json={"key": "shared/a", "direct": True}), 422, field="direct")


# Uploads in parts ---------------------------------------------------------------------------------


def test_s2_72_an_upload_goes_on_after_a_break(service: LiveService) -> None:
    tenant = service.tenant()
    body = {"key": "shared/parts.bin", "digest": hashlib.sha256(DATA).hexdigest()}
    upload = answered(tenant.http.post("/v1/uploads", json=body), 201)
    at = f"/v1/uploads/{upload['id']}"
    pieces = [DATA[:1_000_000], DATA[1_000_000:2_000_000], DATA[2_000_000:]]
    for number in (3, 1):
        answered(tenant.http.put(f"{at}/parts/{number}", content=pieces[number - 1]))
    refused(tenant.http.post(f"{at}/complete"), 409, "conflict")
    assert [part["number"] for part in answered(tenant.http.get(at))["parts"]] == [1, 3]
    assert listed(tenant) == []
    refused(tenant.http.put(f"{at}/parts/2", content=b"x", headers=digest_header(b"y")), 422, field="digest")
    answered(tenant.http.put(f"{at}/parts/2", content=b"wrong"))
    refused(tenant.http.post(f"{at}/complete"), 422, field="digest")
    answered(tenant.http.put(f"{at}/parts/2", content=pieces[1], headers=digest_header(pieces[1])))
    assert answered(tenant.http.post(f"{at}/complete"), 201)["digest"] == body["digest"]
    assert tenant.http.get("/v1/objects/shared/parts.bin").content == DATA
    refused(tenant.http.get(at), 404, "not_found")
    refused(tenant.http.put(f"{at}/parts/1", content=b"x"), 404, "not_found")


def test_s2_75_uploads_of_another_tenant_are_not_there(service: LiveService) -> None:
    mine, theirs = service.tenant(), service.tenant()
    upload = answered(theirs.http.post("/v1/uploads", json={"key": "shared/x"}), 201)
    at = f"/v1/uploads/{upload['id']}"
    for response in (
        mine.http.get(at),
        mine.http.put(f"{at}/parts/1", content=b"x"),
        mine.http.post(f"{at}/complete"),
        mine.http.delete(at),
    ):
        refused(response, 404, "not_found")
    assert theirs.http.delete(at).status_code == 204
    refused(theirs.http.get(at), 404)


@pytest.mark.parametrize(
    "upload_id",
    ["upl_" + 26 * "a", "upl_", "x", "..", "%2e%2e", "upl_..%2f..", "*", "UPL_" + 26 * "A", 300 * "u", "%00"],
)
def test_s2_75_an_upload_that_nobody_has_begun_is_not_there(tenant: Tenant, upload_id: str) -> None:
    at = f"/v1/uploads/{upload_id}"
    for response in (
        tenant.http.get(at),
        tenant.http.put(f"{at}/parts/1", content=b"x"),
        tenant.http.post(f"{at}/complete"),
        tenant.http.delete(at),
    ):
        assert response.status_code in {400, 404, 405, 422}
    assert answered(tenant.http.get("/v1/objects?prefix=uploads/"), 200)["items"] == []


@pytest.mark.parametrize("number", [0, 10_001, -1])
def test_a_part_has_a_number_that_there_is(tenant: Tenant, number: int) -> None:
    upload = answered(tenant.http.post("/v1/uploads", json={"key": "shared/x"}), 201)
    refused(tenant.http.put(f"/v1/uploads/{upload['id']}/parts/{number}", content=b"x"), 422)
    assert tenant.http.delete(f"/v1/uploads/{upload['id']}").status_code == 204


# Of the whole service -----------------------------------------------------------------------------


def test_s2_72_objects_are_there_after_a_crash(tmp_path: Path, slowness: float) -> None:
    data = tmp_path / "data"
    with serving(data, slowness=slowness) as first:
        tenant = first.tenant()
        put(tenant, "shared/x", DATA)
        first.process.kill()
        first.process.wait()
    (data / "objects" / "new" / "litter").write_bytes(b"of one that was killed")
    with serving(data, slowness=slowness) as second:
        response = second.client(tenant.key).get("/v1/objects/shared/x")
        assert response.content == DATA
        assert list((data / "objects" / "new").iterdir()) == []


def api_process(service: LiveService) -> Path:
    """Where the kernel tells of the process that answers."""
    for pid in process_tree(service.process.pid):
        if b"casemate.api" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return Path(f"/proc/{pid}")
    raise AssertionError("there is no API")


def memory_bytes(process: Path) -> int:
    return int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_objects(process: Path, data: Path) -> int:
    """How many files of objects are open."""
    count = 0
    for each in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed just now
            count += each.readlink().is_relative_to(data / "objects")
    return count


def test_s2_72_an_object_of_any_size_takes_no_memory(service: LiveService) -> None:
    tenant = service.tenant()
    process, piece = api_process(service), os.urandom(1024 * 1024)
    put(tenant, "shared/first", piece)
    before = memory_bytes(process)
    count = 256
    large = tenant.http.put("/v1/objects/shared/large", content=(piece for _ in range(count)), timeout=120)
    assert answered(large, 201)["size_bytes"] == count * len(piece)
    seen, most = 0, memory_bytes(process)
    with tenant.http.stream("GET", "/v1/objects/shared/large", timeout=120) as response:
        for part in response.iter_bytes():
            seen += len(part)
            most = max(most, memory_bytes(process))
    assert seen == count * len(piece)
    assert most - before < 48 * 1024 * 1024
    tenant.http.delete("/v1/objects/shared/large")


def test_downloads_that_are_left_keep_nothing_open(service: LiveService) -> None:
    tenant = service.tenant()
    put(tenant, "shared/left", DATA * 4)
    process = api_process(service)
    for _ in range(10):
        with tenant.http.stream("GET", "/v1/objects/shared/left") as response:
            next(response.iter_bytes())
    until_s = time.monotonic() + 30
    while open_objects(process, service.data) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert open_objects(process, service.data) == 0
