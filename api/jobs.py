"""Background jobs: one at a time, each a process of its own, none that outlives the server.

A comparison keeps a core busy for minutes. In a process of its own it neither holds the event loop
nor the interpreter's lock, and it yields to the reviews. What a server was running when it died is
marked as failed by the next one; what waited goes on waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from api import audit
from api.auth import Principal
from api.idempotency import Once
from api.job_plans import PLANNERS, Plan, Sources, share_done
from api.job_process import Ended, JobProcess, Step
from api.problems import ProblemError
from api.store import jobs as store
from api.store.private import FOLDER_MODE, private_folder

log = logging.getLogger("greenboard.jobs")
TELL_S = 0.5
STOPPED = "The server was stopped while this ran; ask for it again."
DIED = "The server ended while this ran; ask for it again."
LONGEST_FAILURE = 1000


@dataclass(frozen=True, kw_only=True)
class JobLimits:
    """How much is taken on.

    Attributes:
        queue: jobs that may wait.
        seconds: after which a job is ended.
        kept: jobs whose files are kept.
    """

    queue: int = 8
    seconds: float = 3600.0
    kept: int = 50


@dataclass(kw_only=True)
class _Current:
    """The job that runs."""

    id: str
    process: JobProcess | None = None
    stopped_by: str | None = None
    told_s: float = 0.0
    progress: float = 0.0


class Jobs:
    """Takes jobs on, runs one at a time, and keeps what they leave."""

    def __init__(
        self, *, sources: Sources, folder: Path, limits: JobLimits, clock: Callable[[], datetime]
    ) -> None:
        """Put the parts together; :meth:`start` begins to work.

        Args:
            sources: what commands are made from.
            folder: takes a folder a job.
            limits: how much is taken on.
            clock: the present.
        """
        self._sources = sources
        self._database = sources.database
        self._folder = folder
        self._clock = clock
        self._bell = asyncio.Event()
        self._current: _Current | None = None
        self._task: asyncio.Task[None] | None = None
        self.limits = limits

    async def start(self) -> None:
        """Say what came of the jobs of an earlier server, then work."""
        private_folder(self._folder)
        # It may be there from before, and it is ours alone.
        self._folder.chmod(FOLDER_MODE)
        now = self._clock()
        await self._database.write(lambda c: store.fail_running(c, reason=DIED, now=now))
        self._bell.set()
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End the job that runs, and say so; the others wait for the next start."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None

    @property
    def alive(self) -> bool:
        """Whether jobs are being worked on."""
        return self._task is not None and not self._task.done()

    async def submit(
        self, kind: str, request: Mapping[str, Any], caller: Principal, once: Once
    ) -> tuple[str, bool]:
        """Take a job on; returns its id, and whether the same request made it before.

        Raises:
            ProblemError: if too many wait, or the idempotency key was used for something else.
        """
        job_id, now = secrets.token_hex(16), self._clock()
        row = {
            "id": job_id, "kind": kind, "request": dict(request), "status": store.QUEUED,
            "progress": 0.0, "created_at": now, "updated_at": now, "created_by": caller.name,
        }  # fmt: skip

        def write(connection: Connection) -> str | None:
            before = once.begin(connection, resource=job_id, now=now)
            if before is None:
                self._check_room(connection)
                store.insert_job(connection, row)
                self._note(connection, caller.name, "job.created", job_id, {"kind": kind})
            return before

        before = await self._database.write(write)
        self._bell.set()
        return before or job_id, before is not None

    def _check_room(self, connection: Connection) -> None:
        waiting = store.waiting(connection)
        if waiting >= self.limits.queue:
            raise ProblemError(
                "too-many-jobs",
                f"{waiting} jobs wait, {self.limits.queue} may; wait for one to end, or cancel "
                "one.",
                headers={"Retry-After": "60"},
            )

    async def cancel(self, job_id: str, caller: Principal, once: Once) -> bool:
        """End a job, or take it out of the queue; True if the same request did so before.

        Raises:
            ProblemError: if there is no such job, or it is over.
        """
        now, words = self._clock(), f"Cancelled by {caller.name}."

        def write(connection: Connection) -> bool:
            if once.begin(connection, resource=job_id, now=now) is not None:
                return True
            row = store.get_job(connection, job_id)
            if row is None:
                raise job_not_found()
            over = {"status": store.CANCELLED, "failure": words, "updated_at": now}
            if not store.update_job(connection, job_id, over):
                raise ProblemError("job-over", f"The job is {row.status}; nothing is left to stop.")
            self._note(connection, caller.name, "job.cancelled", job_id, {"kind": row.kind})
            return False

        before = await self._database.write(write)
        current = self._current
        if current is not None and current.id == job_id and not before:
            self._end(current, words)
        return before

    def _note(
        self, connection: Connection, actor: str, action: str, job_id: str, detail: dict[str, Any]
    ) -> None:
        audit.append(
            connection, time=self._clock(), actor=actor, action=action, subject=job_id,
            detail=detail,
        )  # fmt: skip

    def path(self, job_id: str, name: str) -> Path | None:
        """The file of this name that a job left; None if it is not there (any more).

        The name comes from the job's own row, never from a request.
        """
        kept = self._folder / job_id / name
        return kept if kept.is_file() else None

    async def _work(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            while job := await self._database.write(self._take_next):
                await self._run(job)

    def _take_next(self, connection: Connection) -> Any:
        return store.take_next(connection, self._clock())

    async def _run(self, job: Any) -> None:
        current = self._current = _Current(id=job.id)
        began_s = time.monotonic()
        work = asyncio.ensure_future(self._outcome(job, current))
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            self._end(current, STOPPED)
            await asyncio.wait({work})
            raise
        finally:
            self._current = None
            await self._finish(job, _result(job.id, work, time.monotonic() - began_s))

    async def _outcome(self, job: Any, current: _Current) -> dict[str, Any]:
        """Run the job's command to its end; what its row takes from that."""
        folder = self._folder / job.id
        shutil.rmtree(folder, ignore_errors=True)
        private_folder(folder)
        # Before the first wait: nothing else can become active in between.
        identity = self._sources.kits.active.kit.identity
        plan = await PLANNERS[job.kind](self._sources, job.request, folder)
        if current.stopped_by is not None:
            return {"status": store.CANCELLED, "failure": current.stopped_by}
        process = JobProcess(plan.words, folder=folder, output=plan.output)
        current.process = process
        ended = await self._follow(process, current)
        if current.stopped_by is not None or ended.failure is not None:
            failure = current.stopped_by or ended.failure or ""
            log.warning("job %s of kind %s ended with code %d", job.id, job.kind, ended.code)
            return {"status": store.FAILED, "failure": failure[:LONGEST_FAILURE]}
        files = await asyncio.to_thread(_files, plan, folder)
        result = {"bundle": identity.version, "synthetic": identity.synthetic, "files": files}
        return {"status": store.DONE, "progress": 1.0, "message": None, "result": result}

    async def _follow(self, process: JobProcess, current: _Current) -> Ended:
        loop = asyncio.get_running_loop()

        def on_step(step: Step) -> None:
            loop.call_soon_threadsafe(self._tell, current, step)

        words = f"It took longer than {self.limits.seconds:g} s; ask for less."
        alarm = loop.call_later(self.limits.seconds, self._end, current, words)
        try:
            return await asyncio.to_thread(process.follow, on_step)
        finally:
            alarm.cancel()

    def _end(self, current: _Current, words: str) -> None:
        current.stopped_by = current.stopped_by or words
        if current.process is not None:
            current.process.kill()

    def _tell(self, current: _Current, step: Step) -> None:
        """Write progress down now and then; it never goes back."""
        current.progress = max(current.progress, share_done(step))
        if time.monotonic() - current.told_s < TELL_S or current is not self._current:
            return
        current.told_s = time.monotonic()
        values = {
            "progress": current.progress, "message": step.stage, "updated_at": self._clock(),
        }  # fmt: skip
        coming = self._database.write(
            lambda c: store.update_job(c, current.id, values), rebuildable=True
        )
        task = asyncio.ensure_future(coming)
        task.add_done_callback(_dropped)

    async def _finish(self, job: Any, outcome: Mapping[str, Any]) -> None:
        now, kept = self._clock(), self.limits.kept

        def write(connection: Connection) -> set[str]:
            # A job that was cancelled meanwhile stays so.
            if store.update_job(connection, job.id, {**outcome, "updated_at": now}):
                detail = {"kind": job.kind, "status": outcome["status"]}
                self._note(connection, "greenboard", "job.ended", job.id, detail)
            return store.newest(connection, kept)

        keep = await self._database.write(write)
        if outcome["status"] != store.DONE:
            keep.discard(job.id)
        await asyncio.to_thread(_prune, self._folder, keep)


def job_not_found() -> ProblemError:
    """404 for a job."""
    return ProblemError("job-not-found", "There is no job with this id; list /v1/jobs.")


def _result(job_id: str, work: asyncio.Future[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What a job's row takes; one that could not even begin must not stop those after it."""
    error = None if work.cancelled() else work.exception()
    if error is not None or work.cancelled():
        log.error("job %s failed: %s", job_id, type(error).__name__, exc_info=error)
        words = f"{type(error).__name__}; the server's log has the place."
        return {"status": store.FAILED, "failure": words}
    outcome = work.result()
    if "result" in outcome:
        outcome["result"]["seconds"] = round(seconds, 3)
    return outcome


def _dropped(task: asyncio.Future[Any]) -> None:
    """Progress that could not be written is no loss: the end of the job is written by itself."""
    if not task.cancelled() and task.exception() is not None:
        log.warning("progress was not written: %s", type(task.exception()).__name__)


def _files(plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """What the command left, with its sums."""
    found = []
    for name, path, media_type in plan.files:
        content = (folder / path).read_bytes()
        found.append(
            {
                "name": name, "path": path, "media_type": media_type, "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )  # fmt: skip
    return found


def _prune(folder: Path, keep: set[str]) -> None:
    """Remove the folders of other jobs."""
    for path in folder.iterdir():
        if path.is_dir() and path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)
