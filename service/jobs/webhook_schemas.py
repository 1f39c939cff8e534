"""The webhook of a job as clients name it, and the deliveries to it as they see them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints
from pydantic_core import PydanticCustomError

from service.db.tables import Job, WebhookDelivery
from service.jobs.signatures import key_of
from service.schemas import Answer, Body, ProblemAnswer, SelfLink, Time, example

DeliveryState = Literal["waiting", "delivered", "failed"]
Ended = Literal["succeeded", "failed", "cancelled"]

_LEAST_SECRET, _MOST_SECRET = 16, 200


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete or not url.isprintable() or " " in url:
        raise PydanticCustomError("not-an-address", "a webhook's url is written like https://lab.example/reid")
    if parts.username is not None or parts.fragment:
        raise PydanticCustomError("not-an-address", "a webhook's url holds no user, password or fragment")
    return url


def _check_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not _LEAST_SECRET <= len(text) <= _MOST_SECRET or not text.isascii() or not text.isprintable():
        raise PydanticCustomError(
            "unusable-secret", "a webhook's secret has 16 to 200 ASCII characters, e.g. those of `openssl rand -hex 24`"
        )
    try:
        key_of(text)
    except ValueError as error:
        raise PydanticCustomError("unusable-secret", "what follows whsec_ in a webhook's secret is base64") from error
    return secret


class WebhookBody(Body):
    """The address that is sent the job's end, and the secret that this is signed with; docs/jobs.md."""

    url: Annotated[str, StringConstraints(max_length=2000), AfterValidator(_check_url)]
    secret: Annotated[SecretStr, AfterValidator(_check_secret)] = Field(description="never shown again")

    @property
    def values(self) -> tuple[str, str]:
        """The url and the secret, as the job's row keeps them."""
        return self.url, self.secret.get_secret_value()


class Notified(Body):
    """The fields of jobs that are started for their own sake, not as a part of another request."""

    webhook: WebhookBody | None = Field(default=None, description="is sent the job's end, signed")


class EndedJob(Answer):
    """A job that is over, as its webhook is told."""

    id: str
    kind: str
    state: Ended
    attempt: int
    result: dict[str, Any] | None
    error: ProblemAnswer | None
    created_at: Time
    started_at: Time | None
    finished_at: Time
    links: SelfLink


class EndEvent(Answer):
    """The body that a webhook receives: `data` is the job as it ended at `timestamp`."""

    type: str = Field(description="job.succeeded, job.failed or job.cancelled")
    timestamp: Time
    data: EndedJob

    @classmethod
    def of(cls, job: Job) -> EndEvent:
        """The event of the job, which is over."""
        if job.finished_at is None:
            raise ValueError(f"job {job.id} is {job.state}")
        ended = EndedJob(
            id=job.id,
            kind=job.kind,
            state=cast("Ended", job.state),
            attempt=job.attempt,
            result=job.result,
            error=ProblemAnswer.model_validate(job.error) if job.error else None,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            links=SelfLink(self=f"/jobs/{job.id}"),
        )
        return cls(type=f"job.{job.state}", timestamp=job.finished_at, data=ended)


class DeliveryAnswer(Answer):
    """A job's end on its way to the job's webhook, or there."""

    model_config = example(
        id="evt_01jb2c3d4e5f6g7h8j9k0m1n2p",
        event="job.succeeded",
        receiver="https://lab.example",
        state="delivered",
        attempts=4,
        status=204,
        fault=None,
        created_at="2026-01-31T12:00:00Z",
        next_attempt_at=None,
        finished_at="2026-01-31T12:00:41Z",
    )

    id: str = Field(description="the event's, sent as `webhook-id` at every attempt")
    event: str
    receiver: str = Field(description="scheme, host and port of the webhook")
    state: DeliveryState
    attempts: int
    status: int | None = Field(description="of the last attempt's answer; null where none came")
    fault: str | None = Field(description="why the last attempt failed")
    created_at: Time
    next_attempt_at: Time | None
    finished_at: Time | None

    @classmethod
    def of(cls, delivery: WebhookDelivery) -> DeliveryAnswer:
        """The delivery as clients see it."""
        return cls(
            id=delivery.id,
            event=delivery.event,
            receiver=delivery.receiver,
            state=cast("DeliveryState", delivery.state),
            attempts=delivery.attempts,
            status=delivery.status,
            fault=delivery.fault,
            created_at=delivery.created_at,
            next_attempt_at=delivery.due_at,
            finished_at=delivery.finished_at,
        )
