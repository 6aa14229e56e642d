"""A study on a Ray cluster, from any machine: its driver as a job of the cluster, by Ray's Jobs API.

    submit_study("http://head:8265", store_url="s3://bucket/lnln", corpus="mosi", config=config, num_trials=24)

A job is called by what it is to do, so the same call submits it, follows it wherever and as often as it is made, and
does nothing once the study has its trials. What is done is said by the store; a job only says that somebody is at it.
The cluster reads `lnln` from its own environment, and the rights to the store and to a database too: what is sent is
the config and the space, which are no secret.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import ray
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from lnln.config import Config, fingerprint
from lnln.data.manifest import read_features
from lnln.data.model_inputs import with_simulation_in_use
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from lnln.progress import line
from lnln.train.launch import chosen_threads, patience_seconds
from tuning.database_url import has_password
from tuning.record import STUDY_FILE, load_study, study_folder
from tuning.space import Space, default_space
from tuning.sweep import study_id_for

T = TypeVar("T")

# How often to look what a job said, and how long one that is stopped may take to end.
LOOK_SECONDS = 2.0
STOP_SECONDS = 60.0

# Seconds for a connection, and between the bytes of an answer. Ray's client would wait for ever, as it does on a laptop
# that was asleep.
_TIMEOUTS = (10, 60)

# Variables that would win over the address that was asked for.
_OTHER_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")

# Loggers that say how the two files are sent.
_TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")

_COMMAND_NOT_FOUND = 127

# What a line of the command begins with that says why it ends.
_REFUSAL = "lnln: "


class UnreachableError(RefusedError):
    """The cluster does not answer. What it runs goes on, and the same call follows it again."""


def submit_study(
    address: str,
    *,
    store_url: str,
    corpus: str,
    config: Config,
    num_trials: int,
    space: Space | None = None,
    num_workers: int = 1,
    gpus_per_worker: float = 1.0,
    max_minutes: float | None = None,
    follow: bool = True,
    say: Callable[[str], None] = line,
) -> None:
    """Have the cluster whose dashboard is at `address` run `tuning.sweep.tune`, and return when the study has ended.

    A job of an earlier call that waits or runs is followed instead, and where the study has `num_trials` trials nothing
    is started. The driver runs on the head of the cluster and takes no CPU of it, since it only waits for trials.
    OMP_NUM_THREADS of this process is that of the train workers. follow: False to return once there is a job. say:
    takes each line of the job, as it comes; Ctrl-C leaves the job running.
    Raises RefusedError for what the cluster could not do (a store or a database that is a file of this machine), for a
    job that failed, with its last reason, and UnreachableError where the cluster does not answer for
    LNLN_PATIENCE_SECONDS.
    """
    if num_trials < 1:
        raise RefusedError(f"a study needs 1 trial or more, got {num_trials}")
    space = default_space(config) if space is None else space
    store, study_id = _identify(address, store_url, corpus, config, space)
    space.require(config)
    cluster = _Cluster(address)
    if cluster.ray_version != ray.__version__:
        say(
            f"Ray is {ray.__version__} here and {cluster.ray_version} on the cluster, which runs the study with its own"
        )
    first = _job_name(store, study_id, num_trials)
    jobs = _attempts(cluster, first)
    name = _attempt_name(first, len(jobs))
    if not jobs or jobs[-1].status.is_terminal():
        num_done = _num_done(store, study_id)
        if num_done >= num_trials:
            say(f"study {study_id} has {num_done} of {num_trials} trials; more --trials continue it")
            return
        name = _attempt_name(first, len(jobs) + 1)
        entrypoint = _entrypoint(store, corpus, num_trials, num_workers, gpus_per_worker, max_minutes)
        metadata = {"study_id": study_id, "store": store.url}
        _patiently(cluster, lambda: cluster.submit(name, entrypoint, config, space, metadata), say)
        say(f"submitted job {name} to {address}")
    else:
        say(f"job {name} is {jobs[-1].status.lower()} at {address} already")
    if follow:
        _see_to_its_end(cluster, name, store, study_id, say)


def stop_study(
    address: str,
    *,
    store_url: str,
    corpus: str,
    config: Config,
    num_trials: int,
    space: Space | None = None,
    say: Callable[[str], None] = line,
) -> None:
    """Stop the job that an equal call of `submit_study` submitted; the trials that it ended stay.

    RefusedError where there is no such job.
    """
    space = default_space(config) if space is None else space
    store, study_id = _identify(address, store_url, corpus, config, space)
    cluster = _Cluster(address)
    first = _job_name(store, study_id, num_trials)
    jobs = _attempts(cluster, first)
    if not jobs:
        raise RefusedError(
            f"the cluster at {address} has no job {first}; give the corpus, config, space, store and --trials that it "
            "was submitted with"
        )
    name, job = _attempt_name(first, len(jobs)), jobs[-1]
    if job.status.is_terminal():
        say(f"job {name} had ended before ({job.status.lower()})")
        return
    cluster.stop(name)
    deadline = time.monotonic() + STOP_SECONDS
    while (now := cluster.job(name)) is not None and not now.status.is_terminal():
        if time.monotonic() > deadline:
            raise RefusedError(f"job {name} at {address} was told to stop and has not within {STOP_SECONDS:g} s")
        time.sleep(LOOK_SECONDS / 4)
    say(f"job {name} is stopped; the same command without --stop continues the study")


class _Client(JobSubmissionClient):
    """Ray's client, with timeouts."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        return super()._do_request(*args, **{"timeout": _TIMEOUTS, **kwargs})

    @property
    def ray_version(self) -> str:
        """Of the cluster, which was asked for it at the start."""
        return str(self._server_ray_version)


class _Cluster:
    """The Jobs API at one address; what goes wrong there is an UnreachableError, or a RefusedError."""

    def __init__(self, address: str) -> None:
        self.address = address
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._asking(), _without(*_OTHER_ADDRESSES):
            self._client = _Client(address)
        self.ray_version = self._client.ray_version

    def job(self, name: str) -> JobDetails | None:
        """None where the cluster knows no such job."""
        with self._asking():
            try:
                return self._client.get_job_info(name)
            except RuntimeError as error:
                if _status_code(error) == 404:
                    return None
                raise

    def log(self, name: str) -> str:
        """All that the job has said so far."""
        with self._asking():
            return self._client.get_job_logs(name)

    def submit(self, name: str, entrypoint: str, config: Config, space: Space, metadata: dict[str, str]) -> None:
        """Make the job, unless somebody else does so at the same moment; also where the answer to that is lost."""
        with tempfile.TemporaryDirectory(prefix="lnln-job-") as folder:
            for file, values in (("config.yaml", config.to_dict()), ("space.yaml", space.to_dict())):
                (Path(folder) / file).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
            try:
                with self._asking():
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=name,
                        runtime_env={"working_dir": folder},
                        metadata=metadata,
                    )
            except RefusedError:
                if self.job(name) is None:
                    raise

    def stop(self, name: str) -> None:
        with self._asking():
            self._client.stop_job(name)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            has_token = "Authentication failed" in str(error)
            raise RefusedError(
                f"the Ray cluster at {self.address} {'does not take our token' if has_token else 'wants a token'}; "
                "set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN here"
            ) from error
        except OSError as error:  # those of `requests` too
            raise self._unreachable(_why(error)) from error
        except RuntimeError as error:
            code = _status_code(error)
            if code is None:
                raise self._unreachable("no answer of the Jobs API") from error
            kind, verb = (RefusedError, "refused") if code < 500 else (UnreachableError, "could not answer")
            said = _last_line(str(error)).removeprefix(f"Request failed with status code {code}: ").rstrip(".")
            raise kind(f"the Ray cluster at {self.address} {verb} ({code}: {said})") from error
        except (KeyError, TypeError, ValueError) as error:
            raise self._unreachable("its answer is not Ray's") from error

    def _unreachable(self, reason: str) -> UnreachableError:
        return UnreachableError(
            f"no dashboard of a Ray cluster answers at {self.address} ({reason}); give the address that `ray start "
            "--head` with ray[default] shows for it, whose port is 8265 unless it was chosen"
        )


def _identify(address: str, store_url: str, corpus: str, config: Config, space: Space) -> tuple[Store, str]:
    """The store and the study's id; RefusedError for what a cluster at `address` could not use."""
    host = _host(address)
    store = Store(store_url)
    storage_url = config.tune.storage_url
    if has_password(storage_url):
        raise RefusedError(
            "tune.storage_url holds a password, which everybody on the cluster could read; leave it out of the URL and "
            "give it to the cluster's machines, for PostgreSQL as PGPASSWORD"
        )
    if not _is_here(host) and "://" not in store.url:
        raise RefusedError(
            f"the store {store.url} is a folder of this machine, which the cluster at {address} does not see; use a "
            "bucket, such as --store s3://bucket/prefix"
        )
    if storage_url.startswith("sqlite") and not (_is_here(host) and "////" in storage_url):
        raise RefusedError(
            f"tune.storage_url is {storage_url}, a file that the cluster at {address} does not see; leave it empty, or "
            "use a database with a server"
        )
    manifest = read_features(store, corpus)
    return store, study_id_for(corpus, manifest.feature_id, with_simulation_in_use(store, manifest, config), space)


def _host(address: str) -> str:
    """The host of a URL; RefusedError where `address` is none that a dashboard could have."""
    parts = urlsplit(address)
    try:
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        is_valid = False
    if parts.username or parts.password:
        raise RefusedError("the address of a Ray cluster must not hold a user or a password")
    if not is_valid:
        raise RefusedError(f"the address of a Ray cluster's dashboard is such as http://HOST:8265, got {address!r}")
    return parts.hostname or ""


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _job_name(store: Store, study_id: str, num_trials: int) -> str:
    """Studies of two stores may be called the same."""
    return f"{study_id}-{num_trials}-{fingerprint(store.url)[:6]}"


def _attempts(cluster: _Cluster, first: str) -> list[JobDetails]:
    """The jobs of this name that the cluster knows, in order.

    Ray does not support that a name is used again, so each attempt has its own.
    """
    jobs: list[JobDetails] = []
    while (job := cluster.job(_attempt_name(first, len(jobs) + 1))) is not None:
        jobs.append(job)
    return jobs


def _attempt_name(first: str, number: int) -> str:
    return first if number <= 1 else f"{first}.{number}"


def _entrypoint(
    store: Store, corpus: str, num_trials: int, num_workers: int, gpus_per_worker: float, max_minutes: float | None
) -> str:
    """The job's command; what it finds goes to the store, so its log is what it says meanwhile.

    Ray gives drivers of jobs OMP_NUM_THREADS=1, which would become that of every train worker.
    """
    words = ["lnln", "--store", store.url, "tune", corpus, "--trials", num_trials]
    words += ["--config", "config.yaml", "--space", "space.yaml"]
    words += ["--workers", num_workers, "--gpus-per-worker", gpus_per_worker]
    if max_minutes is not None:
        words += ["--minutes", max_minutes]
    threads = chosen_threads()
    chosen = "unset OMP_NUM_THREADS" if threads is None else f"export OMP_NUM_THREADS={threads}"
    return f"{chosen}; exec {shlex.join(map(str, words))} > /dev/null"


def _num_done(store: Store, study_id: str) -> int:
    """Trials that count, by the store's record; 0 where it has none, or a damaged one, which is then written anew."""
    try:
        study = load_study(store, study_id)
    except StoreFailedError:
        raise
    except RefusedError:
        return 0
    return len(study.of_state("complete")) + len(study.of_state("pruned"))


def _see_to_its_end(cluster: _Cluster, name: str, store: Store, study_id: str, say: Callable[[str], None]) -> None:
    try:
        job = _follow(cluster, name, say)
    except KeyboardInterrupt:
        say(f"job {name} goes on at {cluster.address}; the same command follows it again, and with --stop stops it")
        raise
    if job.status == JobStatus.STOPPED:
        raise RefusedError(f"job {name} at {cluster.address} was stopped; the same command continues the study")
    if job.status == JobStatus.FAILED:
        raise RefusedError(
            f"job {name} at {cluster.address} failed ({_reason(job)}); the same command continues the study"
        )
    if not store.exists(f"{study_folder(study_id)}/{STUDY_FILE}"):
        raise RefusedError(
            f"job {name} at {cluster.address} has ended and left no study {study_id} in {store.url}; have the same "
            "version of lnln here and there, and the same AWS_ENDPOINT_URL"
        )


def _follow(cluster: _Cluster, name: str, say: Callable[[str], None]) -> JobDetails:
    """The job when it has ended, its lines said as they come, from the first; a connection that breaks is taken up.

    Asking again and again is all there is to it: a stream would have to be watched for being dead.
    """
    num_said = 0
    while True:
        job, text = _patiently(cluster, lambda: _look(cluster, name), say)
        is_over = job.status.is_terminal()
        whole = text if is_over else text[: text.rfind("\n") + 1]
        for said in whole[num_said:].splitlines():
            if _is_news(said, name):
                say(said)
        num_said = max(num_said, len(whole))
        if is_over:
            return job
        time.sleep(LOOK_SECONDS)


def _look(cluster: _Cluster, name: str) -> tuple[JobDetails, str]:
    """A job, and what it has said by then: all of it where it has ended, nothing where that ended with its machine."""
    job = cluster.job(name)
    if job is None:
        raise RefusedError(
            f"the cluster at {cluster.address} knows job {name} no more, since its head was started anew; the same "
            "command continues the study"
        )
    try:
        return job, cluster.log(name)
    except UnreachableError:
        if job.status.is_terminal():
            return job, ""
        raise


def _patiently(cluster: _Cluster, ask: Callable[[], T], say: Callable[[str], None]) -> T:
    """What `ask` returns, however often the cluster does not answer, for LNLN_PATIENCE_SECONDS."""
    patience, lost_at = patience_seconds(), None
    while True:
        try:
            answer = ask()
        except UnreachableError as error:
            if lost_at is None:
                lost_at = time.monotonic()
                say(f"{error}; trying again for {patience:g} s")
            if time.monotonic() - lost_at >= patience:
                raise UnreachableError(f"{error}, for {patience:g} s; the same command goes on from here") from error
        else:
            if lost_at is not None:
                say(f"the cluster at {cluster.address} answers again")
            return answer
        time.sleep(LOOK_SECONDS)


def _is_news(said: str, name: str) -> bool:
    """Not the two lines of Ray before the job's own, nor the job's refusal, which is said as the reason of its end."""
    is_of_ray = said.startswith(f"Running entrypoint for job {name}:") or said.endswith("Runtime env is setting up.")
    return bool(said.strip()) and not is_of_ray and not said.startswith(_REFUSAL)


def _reason(job: JobDetails) -> str:
    """Why a job failed, in one line."""
    code, message = job.driver_exit_code, job.message or ""
    if code is None:
        return " ".join(message.split())[:300]
    if code == _COMMAND_NOT_FOUND:
        return "there is no command `lnln` where the head of the cluster was started; install the package there"
    refusals = [said for said in message.splitlines() if said.startswith(_REFUSAL)]
    if refusals:
        return refusals[-1].removeprefix(_REFUSAL).strip()
    if code < 0 or code > 128:
        return f"its driver was ended by signal {-code if code < 0 else code - 128}"
    return _last_line(message)


def _status_code(error: RuntimeError) -> int | None:
    found = re.search(r"status code (\d+)", str(error))
    return int(found[1]) if found else None


def _last_line(text: str) -> str:
    lines = [each.strip() for each in text.splitlines() if each.strip()]
    return lines[-1] if lines else "no reason given"


def _why(error: BaseException) -> str:
    """In few words, out of the many of `requests`."""
    said = f"{error} {error.__context__ or ''}"
    found = re.search(r"\[Errno -?\d+\] ([^'\")>]+)", said)
    if found:
        return found[1].strip()
    return "timed out" if "timed out" in said else type(error).__name__


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """The environment without these variables."""
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
