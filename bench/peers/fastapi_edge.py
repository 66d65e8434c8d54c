"""An edge as the documentation of FastAPI, pydantic and aiokafka would have it: validate, hash, produce, wait, 202.

It checks the same fields as ours, but has no limits, no cross-origin answers, no metrics, no spool and no store. Run by
uvicorn with uvloop and httptools; PEER_KAFKA, PEER_TOPIC, PEER_KEYS (a JSON file, organisation by key), PEER_SECRET.
PEER_GATHER=1 has the events of a request produced together and awaited together.
"""

import asyncio
import gzip
import hmac
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from aiokafka import AIOKafkaProducer
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

TOPIC = os.environ["PEER_TOPIC"]
KEYS: dict[str, str] = json.loads(Path(os.environ["PEER_KEYS"]).read_text())
SECRET = os.environ["PEER_SECRET"].encode()
GATHER = "PEER_GATHER" in os.environ


class GzipRequest(Request):
    """From "Custom Request and APIRoute class" of FastAPI's documentation."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            body = await super().body()
            if "gzip" in self.headers.getlist("Content-Encoding"):
                body = gzip.decompress(body)
            self._body = body
        return self._body


class GzipRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:
        original = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await original(GzipRequest(request.scope, request.receive))

        return handler


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class Event(Model):
    event_type: Literal["view", "complete", "dismiss", "skip", "custom"]
    id: UUID = Field(default_factory=uuid4)
    flow_id: UUID | None = None
    step_id: UUID | None = None
    session_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    user_id: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    anonymous_id: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    data: Any = None
    timestamp: AwareDatetime | None = None
    url: Annotated[str, Field(max_length=2048)] | None = None

    @model_validator(mode="after")
    def complete(self) -> "Event":
        if self.event_type == "custom":
            if self.name is None:
                raise ValueError("a custom event needs a name")
        elif self.flow_id is None:
            raise ValueError("flowId is required")
        return self


class EventsRequest(Model):
    events: Annotated[list[Event], Field(min_length=1, max_length=50)]
    sent_at: AwareDatetime | None = None


class Accepted(BaseModel):
    accepted: int


bearer = HTTPBearer(auto_error=False)


async def organisation(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    found = KEYS.get(credentials.credentials) if credentials else None
    if found is None:
        raise HTTPException(401, "Unauthorized")
    return found


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AIOKafkaProducer(
        bootstrap_servers=os.environ["PEER_KAFKA"], acks="all", enable_idempotence=True
    ) as producer:
        app.state.producer = producer
        yield


app = FastAPI(lifespan=lifespan)
router = APIRouter(prefix="/api/v1", route_class=GzipRoute)


@router.post("/events", status_code=202)
async def events(body: EventsRequest, tenant: Annotated[str, Depends(organisation)], request: Request) -> Accepted:
    producer: AIOKafkaProducer = request.app.state.producer
    received = datetime.now(UTC).isoformat()
    values = [record(event, tenant, received) for event in body.events]
    key = tenant.encode()
    if GATHER:
        await asyncio.gather(*[await producer.send(TOPIC, value, key=key) for value in values])
    else:
        for value in values:
            await producer.send_and_wait(TOPIC, value, key=key)
    return Accepted(accepted=len(values))


def record(event: Event, tenant: str, received: str) -> bytes:
    found = event.model_dump(mode="json", by_alias=True, exclude_none=True)
    if event.user_id is not None:
        found["userId"] = hmac.digest(SECRET, event.user_id.encode(), "sha256").hex()
    if event.url is not None:
        found["url"] = event.url.partition("?")[0].partition("#")[0]
    return json.dumps({"organisation": tenant, "received": received, **found}).encode()


app.include_router(router)
