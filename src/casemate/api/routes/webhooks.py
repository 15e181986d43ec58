"""Where tenants want to be told what happens, and what became of that."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends
from starlette.responses import Response

from casemate.api.account_models import NewWebhookOut, NoticesOut, WebhookIn, WebhookOut, WebhooksOut
from casemate.api.auth import allowed
from casemate.api.documents import json_response, moment
from casemate.api.queries import Listed
from casemate.api.route import CheckedRoute
from casemate.api.state import Parts
from casemate.store.webhooks import Notice, Webhook
from casemate.tenancy.secrets import webhook_text
from casemate.tenancy.terms import Principal

router = APIRouter(prefix="/v1/webhooks", tags=["accounting"], route_class=CheckedRoute)
Manager = Annotated[Principal, Depends(allowed("webhooks:manage"))]


def webhook_document(webhook: Webhook) -> dict[str, Any]:
    """A subscription as it is answered."""
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": webhook.events,
        "created_at": moment(webhook.created_us),
    }


def notice_document(notice: Notice) -> dict[str, Any]:
    """What became of a notice."""
    return {
        "webhook_id": notice.webhook_id,
        "event_id": notice.event_id,
        "kind": notice.kind,
        "state": notice.state,
        "attempts": notice.attempts,
        "problem": notice.problem,
        "created_at": moment(notice.created_us),
        "due_at": moment(notice.due_us),
        "ended_at": moment(notice.ended_us),
        "event": msgspec.Raw(notice.body.encode()),
    }


@router.get("", response_model=WebhooksOut, summary="List webhooks")
async def list_webhooks(parts: Parts, who: Manager, page: Listed) -> Response:
    """The tenant's, without their secrets."""
    found = await parts.webhooks.list_webhooks(who.tenant_id, limit=page.limit, cursor=page.cursor)
    return json_response({"items": [webhook_document(each) for each in found.items], "next_cursor": found.next_cursor})


@router.post("", status_code=201, response_model=NewWebhookOut, summary="Subscribe to events")
async def create_webhook(body: WebhookIn, parts: Parts, who: Manager) -> Response:
    """Events are sent there as POSTs, signed with the secret that is shown this once."""
    made = await parts.webhooks.create(who.tenant_id, body.url, body.events)
    secret = webhook_text(parts.signing.notice_secrets(made.id)[0]).decode("ascii")
    return json_response({**webhook_document(made), "secret": secret}, 201, {"Cache-Control": "no-store"})


@router.get("/{webhook_id}", response_model=WebhookOut, summary="Look up a webhook")
async def show_webhook(webhook_id: str, parts: Parts, who: Manager) -> Response:
    """One subscription."""
    return json_response(webhook_document(await parts.webhooks.get(who.tenant_id, webhook_id)))


@router.delete("/{webhook_id}", status_code=204, response_class=Response, summary="Unsubscribe")
async def delete_webhook(webhook_id: str, parts: Parts, who: Manager) -> Response:
    """What is on its way there is not sent any more."""
    await parts.webhooks.delete(who.tenant_id, webhook_id)
    return Response(status_code=204)


@router.get("/{webhook_id}/notices", response_model=NoticesOut, summary="List what was sent to a webhook")
async def list_notices(
    webhook_id: str,
    parts: Parts,
    who: Manager,
    page: Listed,
    state: Literal["waiting", "delivered", "failed"] | None = None,
) -> Response:
    """Of the last seven days, youngest first."""
    found = await parts.webhooks.list_notices(
        who.tenant_id, webhook_id, state=state, limit=page.limit, cursor=page.cursor
    )
    return json_response({"items": [notice_document(each) for each in found.items], "next_cursor": found.next_cursor})


@router.post("/{webhook_id}/test", status_code=202, response_model=dict[str, str], summary="Send a test event")
async def test_webhook(webhook_id: str, parts: Parts, who: Manager) -> Response:
    """An event of the kind `test`, which tells nothing."""
    return json_response({"event_id": await parts.webhooks.test(who.tenant_id, webhook_id)}, 202)
