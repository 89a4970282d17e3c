"""The client for asyncio."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

import httpx

from api.batch_schemas import BatchView
from api.client import calls, flows, operations
from api.client.events import CaseEvent, Following
from api.client.flows import Attempt, Flow, Outcome, Pause, Rest
from api.client.retry import Retry
from api.client.settings import Reach
from api.client.wire import Call, CaseRef
from api.job_requests import JobView
from api.schemas import CaseRequest, CaseSummary, CaseView

P = ParamSpec("P")
T = TypeVar("T")


def _method(
    build: Callable[P, Call[T]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Make a request's function a method that sends it."""

    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._carry_out(flows.send(build(*args, **kwargs), self._reach.retry))

    functools.update_wrapper(method, build)
    return method


class AsyncClient:
    """Talks to a server without holding the event loop up.

        async with AsyncClient("http://127.0.0.1:8000", key) as client:
            case = await client.review({"clinical": {"age": 61}})
            case = await client.accept(case)

    The same methods as :class:`api.client.Client`; one client serves many tasks of one loop.
    """

    create_case = _method(calls.create_case)
    post_bundle = _method(calls.post_bundle)
    case_bundle = _method(calls.case_bundle)
    read_case = _method(calls.read_case)
    list_cases = _method(calls.list_cases)
    accept = _method(calls.accept)
    override = _method(calls.override)
    send_back = _method(calls.send_back)
    request_transfer = _method(calls.request_transfer)
    mark_unreliable = _method(calls.mark_unreliable)
    raise_urgency = _method(calls.raise_urgency)
    retry_case = _method(calls.retry_case)
    wake = _method(calls.wake)
    case_audit = _method(calls.case_audit)
    export_case = _method(calls.export_case)
    export_cases = _method(calls.export_cases)
    rephrase = _method(calls.rephrase)
    policies = _method(operations.policies)
    bundles = _method(operations.bundles)
    activations = _method(operations.activations)
    activate_bundle = _method(operations.activate_bundle)
    roll_back_bundle = _method(operations.roll_back_bundle)
    start_comparison = _method(operations.start_comparison)
    start_report = _method(operations.start_report)
    list_jobs = _method(operations.list_jobs)
    read_job = _method(operations.read_job)
    cancel_job = _method(operations.cancel_job)
    job_file = _method(operations.job_file)
    carbon_now = _method(operations.carbon_now)
    carbon_forecast = _method(operations.carbon_forecast)
    carbon_ledger = _method(operations.carbon_ledger)
    ledger_lines = _method(operations.ledger_lines)
    carbon_account = _method(operations.carbon_account)
    carbon_budget = _method(operations.carbon_budget)
    carbon_limits = _method(operations.carbon_limits)
    check_audit = _method(operations.check_audit)
    health = _method(operations.health)
    readiness = _method(operations.readiness)
    metrics = _method(operations.metrics)

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        retry: Retry | None = None,
        timeout_s: float = 45.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: of the server.
            key: an API key.
            retry: when requests are sent again; patient by default.
            timeout_s: for one answer.
            transport: httpx transport of one's own, for proxies or tests.
        """
        self._reach = Reach(url=url, key=key, retry=retry or Retry(), timeout_s=timeout_s)
        self._http = httpx.AsyncClient(
            base_url=url, headers=self._reach.headers(), timeout=timeout_s, transport=transport
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _carry_out(self, flow: Flow[T]) -> T:
        outcome: Outcome = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as stop:
                result: T = stop.value
                return result
            outcome = await self._do(step)

    async def _do(self, step: Attempt | Pause | Rest) -> Outcome:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Rest):
            # Closed at once: what is left open would hold its connection.
            async with aclosing(self.events(step.case_id)) as events:
                async for event in events:
                    if step.is_over(event):
                        break
            return None
        try:
            return await self._http.send(self._reach.request(self._http, step.call))
        except httpx.TransportError as error:
            return error

    async def review(
        self,
        features: calls.Features | None = None,
        *,
        past_deferral: bool = False,
        key: str | None = None,
        **options: Unpack[calls.CaseOptions],
    ) -> CaseView:
        """Post a case and follow it until a person is needed.

        Args:
            features: feature rows by modality; or give ``case_id``, of the server's cohort.
            past_deferral: wait through a deferral, which may take hours; otherwise a deferred case
                is answered as such, with the hour at which it wakes.
            key: an Idempotency-Key of one's own.
            options: what else the case says of itself.
        """
        call = calls.create_case(features, key=key, **options)
        return await self._carry_out(
            flows.review(call, self._reach.retry, past_deferral=past_deferral)
        )

    async def create_cases(
        self, cases: Sequence[CaseRequest], *, key: str | None = None
    ) -> BatchView:
        """Post up to 100 cases; what came of each stands in the answer.

        Cases that found the queue full are posted again, as patiently as everything else.
        """
        call = calls.create_cases(cases, key=key)
        return await self._carry_out(flows.take_on(call, self._reach.retry))

    async def iter_cases(
        self, *, limit: int = 200, **filters: Unpack[calls.Filters]
    ) -> AsyncGenerator[CaseSummary, None]:
        """Every case of a list, asked for page by page."""
        page = None
        build = functools.partial(calls.page_of_cases, filters, limit)
        while page := await self._carry_out(flows.after(build, self._reach.retry, page)):
            for case in page.cases:
                yield case

    async def iter_jobs(self, *, limit: int = 200) -> AsyncGenerator[JobView, None]:
        """Every job, newest first."""
        page = None
        build = functools.partial(operations.page_of_jobs, limit)
        while page := await self._carry_out(flows.after(build, self._reach.retry, page)):
            for job in page.jobs:
                yield job

    async def wait_for_job(
        self,
        job: JobView | str,
        *,
        timeout_s: float | None = None,
        poll_s: float = flows.JOB_POLL_S,
        on_progress: Callable[[JobView], object] | None = None,
    ) -> JobView:
        """Wait until a job is over.

        Args:
            job: the job or its id.
            timeout_s: how long; for ever if None.
            poll_s: pause between looks.
            on_progress: called with the job whenever something of it has changed.

        Raises:
            JobFailedError: if it ended without a result.
            WaitedTooLongError: if it was not over in time; it goes on.
        """
        return await self._carry_out(
            flows.job_over(
                job, self._reach.retry, timeout_s=timeout_s, poll_s=poll_s, on_progress=on_progress
            )
        )

    async def events(
        self, case: CaseRef, *, after: int | None = None, follow: bool = True
    ) -> AsyncGenerator[CaseEvent, None]:
        """A case's steps as they happen, without a gap or a double, over lost connections too.

        Ends when the case has ended.

        Args:
            case: the case.
            after: number of the last step that was seen.
            follow: False ends after what there is now.
        """
        state = Following(case, after=after, follow=follow, retry=self._reach.retry)
        while not state.over:
            request = self._reach.request(self._http, state.call())
            request.extensions["timeout"] = self._reach.stream_timeout().as_dict()
            try:
                async with aclosing(self._listen(state, request)) as heard:
                    async for event in heard:
                        yield event
            except httpx.TransportError as error:
                state.lost(error)
            if not state.over:
                await asyncio.sleep(state.pause_s)

    async def _listen(
        self, state: Following, request: httpx.Request
    ) -> AsyncGenerator[CaseEvent, None]:
        answer = await self._http.send(request, stream=True)
        try:
            if not answer.is_success:
                await answer.aread()
            if state.refused(answer):
                return
            async for line in answer.aiter_lines():
                event = state.feed(line)
                if event is not None:
                    yield event
            state.closed()
        finally:
            await answer.aclose()
