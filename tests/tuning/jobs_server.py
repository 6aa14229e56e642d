"""A stand-in for the dashboard of a Ray cluster: the requests of its Jobs API, answered as a test wants them.

    with jobs_server() as server:
        submit_study(server.address, ...)

What Ray itself answers is tested in `test_jobs_on_ray.py`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import ray


@dataclass
class Job:
    """states: what it is found in, one after the other, the last of them for ever. log: by then."""

    states: list[str]
    logs: list[str] = field(default_factory=lambda: [""])
    message: str = ""
    exit_code: int | None = None

    def look(self, name: str) -> dict[str, Any]:
        status = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        is_over = status in ("SUCCEEDED", "FAILED", "STOPPED")
        return {
            "type": "SUBMISSION",
            "submission_id": name,
            "status": status,
            "entrypoint": "",
            "message": self.message,
            "driver_exit_code": self.exit_code if is_over else None,
        }

    def read(self) -> str:
        return self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]


@dataclass
class JobsServer:
    """answers: for the next requests whose path holds a key, instead of the right ones: a status, or None for none."""

    address: str = ""
    ray_version: str = ray.__version__
    jobs: dict[str, Job] = field(default_factory=dict)
    next_job: Job = field(default_factory=lambda: Job(["SUCCEEDED"], exit_code=0))
    submitted: list[dict[str, Any]] = field(default_factory=list)
    packages: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, list[int | None]] = field(default_factory=dict)
    num_requests: int = 0
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def jobs_server() -> Iterator[JobsServer]:
    server = JobsServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            server.num_requests += 1
            server.headers.append(dict(self.headers))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            for part, wanted in server.answers.items():
                if part in self.path and wanted:
                    status = wanted.pop(0)
                    if status is None:  # what was asked is done, and nobody hears of it
                        self._answer_rightly(body, is_heard=False)
                        self.close_connection = True
                        return
                    self.send(status, f"answer {status}")
                    return
            self._answer_rightly(body)

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def _answer_rightly(self, body: bytes, *, is_heard: bool = True) -> None:
            status, value = self._result(body)
            if is_heard:
                self.send(status, value if isinstance(value, str) else json.dumps(value))

        def _result(self, body: bytes) -> tuple[int, Any]:
            parts = self.path.strip("/").split("/")
            match self.command, parts:
                case "GET", ["api", "version"]:
                    return 200, {
                        "version": "4",
                        "ray_version": server.ray_version,
                        "ray_commit": "",
                        "session_name": "",
                    }
                case "GET", ["api", "packages", _, package]:
                    return (200, "") if package in server.packages else (404, "absent")
                case "PUT", ["api", "packages", _, package]:
                    server.packages[package] = body
                    return 200, ""
                case "POST", ["api", "jobs"]:
                    request = json.loads(body)
                    name = request["submission_id"]
                    if name in server.jobs:
                        return 500, f"ValueError: Job with submission_id {name} already exists."
                    server.submitted.append(request)
                    server.jobs[name] = server.next_job
                    return 200, {"job_id": name, "submission_id": name}
                case _, ["api", "jobs", name, *rest] if name in server.jobs:
                    job = server.jobs[name]
                    if rest == ["stop"]:
                        job.states = ["RUNNING", "STOPPED"]
                        return 200, {"stopped": True}
                    return 200, {"logs": job.read()} if rest == ["logs"] else job.look(name)
            return 404, "there is no such thing"

        def send(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.address = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        made.shutdown()
        made.server_close()
        thread.join()
