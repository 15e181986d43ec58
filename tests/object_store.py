"""What stands for S3 in tests, and a check of presigned addresses, which that does not make."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

import boto3
from moto.server import ThreadedMotoServer

from casemate.object_config import Credentials, S3Place

CREDENTIALS: Final = Credentials(access_key="test-access", secret_key="test-secret")
REGION: Final = "us-east-1"
_numbers = itertools.count()


class ObjectStore:
    """A server of its own, and a new bucket for everybody who asks."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=CREDENTIALS.access_key,
            aws_secret_access_key=CREDENTIALS.secret_key,
        )

    def place(self, prefix: str = "some/where", encryption: str = "") -> S3Place:
        bucket = f"bucket-{next(_numbers)}"
        self.client.create_bucket(Bucket=bucket)
        return S3Place(bucket=bucket, prefix=prefix, endpoint=self.url, region=REGION, encryption=encryption)

    def close(self) -> None:
        self.client.close()
        self._server.stop()


def presigned_problem(
    method: str, url: str, at: datetime, credentials: Credentials = CREDENTIALS, **headers: str
) -> str:
    """What S3 would have against a presigned request (AWS Signature Version 4); empty: nothing."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    given = query.pop("X-Amz-Signature", "")
    signed_at = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if not signed_at - timedelta(minutes=15) <= at <= signed_at + timedelta(seconds=int(query["X-Amz-Expires"])):
        return "expired"
    access_key, *scope = query["X-Amz-Credential"].split("/")
    if access_key != credentials.access_key:
        return "unknown key"
    canonical_query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query)
    )
    names = query["X-Amz-SignedHeaders"]
    sent = {"host": parts.netloc, **{name.replace("_", "-"): value for name, value in headers.items()}}
    signed = "".join(f"{name}:{sent.get(name, '')}\n" for name in names.split(";"))
    canonical = f"{method}\n{parts.path}\n{canonical_query}\n{signed}\n{names}\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{query['X-Amz-Date']}\n{'/'.join(scope)}\n{digest}"
    key = f"AWS4{credentials.secret_key}".encode()
    for word in scope:
        key = hmac.digest(key, word.encode(), "sha256")
    return "" if hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), given) else "wrong signature"
