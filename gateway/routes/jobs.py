"""GET /jobs, GET and DELETE /jobs/{id}."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from gateway.answers import (
    JobDetail,
    JobDocument,
    JobItem,
    JobList,
    JobProblem,
    JobProgress,
)
from gateway.exchange import exchange_of
from gateway.jobs.job import DocumentOutcome, Job
from gateway.jobs.runner import JobRunner
from gateway.routes.common import json_response, no_parameters, parameters
from gateway.schemas import JobsParameters


class JobRoutes:
    """Work that outlives its request: looking at it, and cancelling it."""

    def __init__(self, jobs: JobRunner) -> None:
        self._jobs = jobs

    async def list(self, request: Request) -> Response:
        """Jobs, newest first."""
        asked = parameters(request, JobsParameters)
        jobs = [job for job in self._jobs.newest() if asked.state in (None, job.state)]
        return json_response(JobList([JobItem(**_fields(job)) for job in jobs[: asked.limit]]))

    async def one(self, request: Request) -> Response:
        """GET or DELETE of one job: one endpoint, so that 405 names both methods."""
        no_parameters(request)
        job_id = request.path_params["id"]
        if request.method == "DELETE":
            job = await self._jobs.cancel(job_id, exchange_of(request).deadline)
        else:
            job = self._jobs.get(job_id)
        if job.kind != "index":
            return json_response(JobDetail(**_fields(job)))
        outcomes = await self._jobs.outcomes(job)
        return json_response(JobDetail(**_fields(job), results=[_result(one) for one in outcomes]))


def _fields(job: Job) -> dict[str, Any]:
    error = UNSET if job.error is None else JobProblem(job.error.reason, job.error.detail)
    return {
        "job_id": job.id,
        "kind": job.kind,
        "state": job.state,
        "collection": job.collection,
        "progress": JobProgress(job.done, job.total),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "error": error,
    }


def _result(one: DocumentOutcome) -> JobDocument:
    error = UNSET if one.error is None else JobProblem(one.error.reason, one.error.detail)
    return JobDocument(one.id, one.status, one.chunks, one.truncated_chunks, error)
