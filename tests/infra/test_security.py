"""Who may do what, what is told to nobody, and what from outside does no harm."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import torch

from lnln.data import store_s3
from lnln.data.retries import SECONDS_VARIABLE
from lnln.data.store import Store
from lnln.errors import RefusedError, StoreFailedError
from pipelines.ingest import import_sample
from tests.command import Outcome, lnln
from tests.corpora import mmsa_content
from tests.faulty_proxy import FaultyProxy
from tests.finished_run import TINY
from tests.guarded_s3 import GuardedS3, guarded_s3
from tests.tls import Certified, certified

ROOT = Path(__file__).parents[2]
OBJECT_STORE = ROOT / "infra" / "object-store"


def policy(name: str = "policy.json") -> Any:
    return json.loads((OBJECT_STORE / name).read_text())


# The store: its policy is what it needs, and no more.


def for_moto(name: str = "policy.json", without: str = "") -> Any:
    """A policy less one action. moto asks for s3:HeadBucket, which AWS does not have: there it is s3:ListBucket."""
    made = policy(name)
    for statement in made["Statement"]:
        actions = [action for action in statement["Action"] if action != without]
        statement["Action"] = [*actions, *(["s3:HeadBucket"] if "s3:ListBucket" in actions else []), "s3:GetBucketAcl"]
    return made


def use(store: Store, folder: Path) -> None:
    """Every verb of a store, and what Ray and Arrow do with it."""
    store.probe()
    store.write("a/one", b"1")
    assert store.create("a/two", b"2") and not store.create("a/two", b"3")
    store.update("a/two", lambda data: (data or b"") + b"!")
    assert store.read("a/two") == b"2!" and store.exists("a/one") and not store.exists("a/none")
    with pytest.raises(FileNotFoundError):
        store.read("a/none")
    with store.open("a/two") as file:
        assert file.read() == b"2!"
    (folder / "large").write_bytes(bytes(3000))
    store.upload(folder / "large", "a/large")
    store.download("a/large", folder / "again")
    store.clock()
    listed = {file.path: file for file in store.list_files()}
    assert store.remove_unchanged(listed["a/large"])
    assert store.list_uploads() == []
    filesystem, path = store.arrow("checkpoints")
    filesystem.create_dir(f"{path}/checkpoint_1")
    with filesystem.open_output_stream(f"{path}/checkpoint_1/state") as out:
        out.write(b"state")
    assert [info.base_name for info in filesystem.get_file_info(_selector(path))] == ["checkpoint_1"]
    filesystem.delete_dir(f"{path}/checkpoint_1")
    store.remove("a/one")


def _selector(path: str) -> Any:
    from pyarrow.fs import FileSelector

    return FileSelector(path)


def action_of(method: str, path: str) -> str:
    """The right that AWS asks for: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html"""
    parts = urlsplit(path)
    asked = set(parse_qs(parts.query, keep_blank_values=True))
    is_object = "/" in parts.path.strip("/")
    if not is_object:
        if method == "POST" and "delete" in asked:
            return "s3:DeleteObject"
        if method == "GET" and "uploads" in asked:
            return "s3:ListBucketMultipartUploads"
        return "s3:ListBucket" if method in ("GET", "HEAD") else f"{method} of a bucket"
    if method == "DELETE":
        return "s3:AbortMultipartUpload" if "uploadId" in asked else "s3:DeleteObject"
    if asked & {"acl", "tagging", "policy"}:
        return f"{method} {sorted(asked)}"
    return {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "POST": "s3:PutObject"}[method]


@pytest.mark.slow
def test_the_policy_allows_what_a_store_asks_for_and_nothing_else(
    s3_store_url: str, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_s3, "MULTIPART_BYTES", 1000)
    monkeypatch.setenv(SECONDS_VARIABLE, "0")  # a fault is not tried again
    with FaultyProxy(s3_endpoint, seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        store = Store(s3_store_url)
        use(store, tmp_path)
        proxy.num_to_spare, proxy.rate, proxy.kinds = 1, 1.0, ("500",)  # the upload begins, and its parts fail
        with pytest.raises(StoreFailedError):
            store.upload(tmp_path / "large", "a/large")
        proxy.rate = 0.0
        asked = {action_of(method, path) for method, path in proxy.requests}
    allowed = {action for statement in policy()["Statement"] for action in statement["Action"]}
    assert asked == allowed


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[GuardedS3, dict[str, dict[str, str]]]]:
    """A server that enforces policies, with the bucket they name, and the environments of a trainer and a reader."""
    with guarded_s3() as server:
        root = server.client("s3")
        for bucket in ("lnln", "other"):
            root.create_bucket(Bucket=bucket)
        root.put_object(Bucket="lnln", Key="elsewhere/secret", Body=b"not yours")
        users = {
            "trainer": server.user("trainer", for_moto()),
            "reader": server.user("reader", for_moto("policy-read.json")),
        }
        server.lock()
        yield server, users


def become(monkeypatch: pytest.MonkeyPatch, user: dict[str, str]) -> None:
    for name, value in user.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(SECONDS_VARIABLE, "0")


@pytest.mark.slow
def test_with_the_policy_a_store_works_and_reaches_no_further(
    guarded: tuple[GuardedS3, dict[str, dict[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, users = guarded
    monkeypatch.setattr(store_s3, "MULTIPART_BYTES", 1000)
    become(monkeypatch, users["trainer"])
    use(Store("s3://lnln/store"), tmp_path)
    for refused in (
        lambda: Store("s3://lnln/elsewhere").read("secret"),
        lambda: Store("s3://lnln/elsewhere").write("mine", b""),
        lambda: Store("s3://other/store").write("mine", b""),
        lambda: Store("s3://other/store").list_files(),
    ):
        with pytest.raises(StoreFailedError):
            refused()
    mine = _client(users["trainer"])
    for method, arguments in (
        ("delete_bucket", {"Bucket": "lnln"}),
        ("put_bucket_policy", {"Bucket": "lnln", "Policy": "{}"}),
        ("list_buckets", {}),
    ):
        with pytest.raises(mine.exceptions.ClientError, match=r"AccessDenied|Forbidden"):
            getattr(mine, method)(**arguments)


def _client(user: dict[str, str]) -> Any:
    import botocore.session

    return botocore.session.Session().create_client(
        "s3",
        user["AWS_DEFAULT_REGION"],
        endpoint_url=user["AWS_ENDPOINT_URL"],
        aws_access_key_id=user["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=user["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.mark.slow
def test_who_may_only_read_reads_and_changes_nothing(
    guarded: tuple[GuardedS3, dict[str, dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, users = guarded
    become(monkeypatch, users["trainer"])
    Store("s3://lnln/store").write("models/x", b"weights")
    become(monkeypatch, users["reader"])
    store = Store("s3://lnln/store")
    assert store.read("models/x") == b"weights" and not store.exists("models/none")
    for refused in (lambda: store.write("models/x", b"worse"), lambda: store.remove("models/x")):
        with pytest.raises(StoreFailedError):
            refused()


@pytest.mark.slow
@pytest.mark.parametrize("without", sorted({a for s in policy()["Statement"] for a in s["Action"]}))
def test_no_right_of_the_policy_can_be_spared(without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But the two about uploads, which only tidy after writers that were killed."""
    if without in ("s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads"):
        pytest.skip("asked for by `lnln gc` and after faults; the test of recorded requests has them")
    with guarded_s3() as server:
        server.client("s3").create_bucket(Bucket="lnln")
        user = server.user("trainer", for_moto(without=without))
        server.lock()
        become(monkeypatch, user)
        with pytest.raises((StoreFailedError, OSError)):
            use(Store("s3://lnln/store"), tmp_path)


@pytest.mark.slow
def test_switches_of_the_bucket_are_taken_as_they_are() -> None:
    """Encryption, no request in the clear, and an end of what is left over: as `aws s3api put-bucket-…` sends them."""
    with guarded_s3() as server:
        client = server.client("s3")
        client.create_bucket(Bucket="lnln")
        encryption, lifecycle = policy("encryption.json"), policy("lifecycle.json")
        client.put_bucket_encryption(Bucket="lnln", ServerSideEncryptionConfiguration=encryption)
        client.put_bucket_lifecycle_configuration(Bucket="lnln", LifecycleConfiguration=lifecycle)
        client.put_bucket_policy(Bucket="lnln", Policy=json.dumps(policy("bucket-policy.json")))
        kept = client.get_bucket_encryption(Bucket="lnln")["ServerSideEncryptionConfiguration"]["Rules"]
        assert kept[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
        rules = client.get_bucket_lifecycle_configuration(Bucket="lnln")["Rules"]
        assert {rule["ID"] for rule in rules} == {rule["ID"] for rule in lifecycle["Rules"]}
        assert all("Expiration" not in rule for rule in rules), "nothing that is in use goes by age"


# Secrets are told to nobody.

SECRETS = {
    "AWS_ACCESS_KEY_ID": "PLANTEDKEYID0000XYZ",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-key-0000-xyz",
    "AWS_SESSION_TOKEN": "planted-session-token-0000-xyz",
    "RAY_AUTH_TOKEN": "planted0ray0token0000xyz00000000",
    "PREFECT_API_AUTH_STRING": "admin:planted-prefect-password",
    "PREFECT_API_KEY": "planted-prefect-key-0000-xyz",
}


@pytest.mark.slow
def test_credentials_are_in_nothing_that_is_written_or_printed(
    s3_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole path with planted secrets, then a search through the store, the folders used and all that was said."""
    home, ray_folder = tmp_path / "home", Path("/tmp") / f"lnln-{os.getpid()}"  # sockets want short paths
    for folder in (home, ray_folder):
        folder.mkdir()
    environment: dict[str, Any] = {
        **SECRETS,
        "HOME": str(home),
        "LNLN_CACHE": str(home / "cache"),
        "TMPDIR": str(ray_folder),
        "RAY_TMPDIR": str(ray_folder),
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    }
    (tmp_path / "corpus.pkl").write_bytes(pickle.dumps(mmsa_content()))
    keys = {f"{section}.{key}": value for section, values in TINY.items() for key, value in values.items()}
    sets = [f"--set={key}={json.dumps(value)}" for key, value in keys.items()]
    said: list[Outcome] = []

    def do(*arguments: str | Path, code: int = 0) -> Outcome:
        outcome = lnln(*arguments, store=s3_store_url, **environment)
        said.append(outcome)
        assert outcome.code == code, outcome.err
        return outcome

    try:
        do("import", tmp_path / "corpus.pkl", "--corpus", "small")
        do("corrupt", "small", *sets)
        trained = do("train", "small", *sets, "--set=train.epochs=1", "--set=train.batch_size=16").json
        do("evaluate", trained["run_id"])
        do("publish", trained["run_id"], "--name", "small-lnln")
        do("report", "small-lnln@best", "--folder", home / "report")
        do("pull", "small-lnln@best", home / "pulled")
        do("doctor")
        # What fails has a reason, which tells no secret either.
        said.append(lnln("doctor", store="s3://no-such-bucket/x", **environment))
        said.append(lnln("train", "nothing", store=s3_store_url, **environment))
        said.append(lnln("doctor", store=s3_store_url, **{**environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}))
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        store = Store(s3_store_url)
        written = {f"s3:{file.path}": store.read(file.path) for file in store.list_files()}
        assert any("checkpoint" in name or "model.safetensors" in name for name in written)
        for path in [*home.rglob("*"), *ray_folder.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                written[str(path)] = path.read_bytes()
    finally:
        subprocess.run(["rm", "-rf", str(ray_folder)], check=False)
    for number, outcome in enumerate(said):
        written[f"what command {number} said"] = (outcome.out + outcome.err).encode()
    assert len(written) > 40
    found = {(name, variable) for name, data in written.items() for variable in _told(data)}
    assert not found


def _told(data: bytes) -> list[str]:
    """Variables whose secret is in `data`, as it is or in base64."""
    import base64

    return [
        name
        for name, secret in SECRETS.items()
        if secret.encode() in data or base64.b64encode(secret.encode()).rstrip(b"=") in data
    ]


# Dask by certificates, Ray by a token.


@pytest.mark.slow
def test_dask_with_certificates_lets_in_who_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = certified(tmp_path / "ours"), certified(tmp_path / "theirs")
    with _tls_dask(tmp_path, ours) as address:
        assert address.startswith("tls://")
        for name, value in ours.dask().items():
            monkeypatch.setenv(name, value)
        # A command of its own, since Dask reads these variables when it is imported.
        store = tmp_path / "store"
        import_sample(Store(store))
        environment: dict[str, Any] = {**ours.dask(), "DASK_SCHEDULER_ADDRESS": address}
        assert lnln("corrupt", "sample", store=store, **environment).code == 0
        fine = lnln("doctor", store=store, **environment)
        assert fine.code == 0 and "1 workers" in fine.out
        # Without a certificate, with one of somebody else, and without TLS at all.
        bare = dict.fromkeys(ours.dask(), "")
        for those, at in (
            ({**bare, "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "False"}, address),
            (theirs.dask(), address),
            ({"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "False"}, address.replace("tls://", "tcp://")),
        ):
            there: dict[str, Any] = {**those, "DASK_SCHEDULER_ADDRESS": at}
            refused = lnln("corrupt", "sample", "--set=corruption.seed=7", store=store, **there)
            assert "no Dask scheduler answers" in refused.refusal
            told = lnln("doctor", store=store, **there)
            assert told.code == 1 and '"Dask", "level": "wrong"' in told.out


class _tls_dask:  # noqa: N801
    """A scheduler and a worker that speak TLS alone; the address of the scheduler."""

    def __init__(self, folder: Path, files: Certified) -> None:
        self.file, self.environment = folder / "scheduler.json", {**os.environ, **files.dask()}
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> str:
        self._start("scheduler", "--protocol", "tls", "--port", "0", "--no-dashboard")
        deadline = time.monotonic() + 60
        while not (self.file.exists() and self.file.stat().st_size):
            assert time.monotonic() < deadline and self.processes[0].poll() is None
            time.sleep(0.1)
        self._start("worker", "--protocol", "tls", "--nthreads", "1", "--no-nanny", "--no-dashboard")
        return str(json.loads(self.file.read_text())["address"])

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()

    def _start(self, role: str, *options: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{role}", "--host", "127.0.0.1", *options]
        self.processes.append(
            subprocess.Popen(
                [*command, "--scheduler-file", str(self.file)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self.environment,
            )
        )


@pytest.mark.slow
def test_ray_lets_nobody_in_without_the_token(tmp_path: Path) -> None:
    from tests.ray_nodes import ray_cluster

    store = tmp_path / "store"
    import_sample(Store(store))
    with ray_cluster() as cluster:
        for token in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32}):
            environment: dict[str, Any] = {"RAY_ADDRESS": cluster.address, **token}
            refused = lnln("train", "sample", "--set=model.text_encoder=tiny", store=store, **environment)
            assert refused.code == 1 and "RAY_AUTH_TOKEN" in refused.refusal
            assert cluster.environment["RAY_AUTH_TOKEN"] not in refused.err + refused.out


# What comes from outside does no harm.


class _Runs:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


HOSTILE_YAML = (
    "!!python/object/apply:os.system ['touch {canary}']",
    "train: !!python/object/apply:subprocess.check_call [['touch', '{canary}']]",
    "train: {{epochs: !!python/name:os.system }}",
    # Nine levels of nine: 3.5 GB, if anybody wrote it out.
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
    "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
    "g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g]\ntrain: [*h,*h,*h,*h,*h,*h,*h,*h,*h]\n",
    "train: {{epochs: [*h]}}",
    "[" * 5000,
    "train: &t\n  epochs: *t\n",
)


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE_YAML, ids=range(len(HOSTILE_YAML)))
def test_yaml_runs_nothing_and_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    canary, file, store = tmp_path / "canary", tmp_path / "hostile.yaml", tmp_path / "store"
    file.write_text(text.format(canary=canary))
    for arguments in (
        ("train", "sample", "--config", file),
        ("tune", "sample", "--trials", "1", "--space", file),
        ("doctor", "--config", file),
    ):
        refused = lnln(*arguments, store=store, timeout_seconds=60)
        assert refused.refusal and len(refused.err) < 5000
    assert not canary.exists()


@pytest.mark.slow
def test_pickles_and_checkpoints_run_nothing(tmp_path: Path) -> None:
    canary, store = tmp_path / "canary", tmp_path / "store"
    hostile = {
        "whole.pkl": pickle.dumps(_Runs(canary)),
        "inside.pkl": pickle.dumps({**mmsa_content(), "train": {**mmsa_content()["train"], "id": _Runs(canary)}}),
        "late.pkl": pickle.dumps([mmsa_content(), _Runs(canary)]),
    }
    for name, data in hostile.items():
        (tmp_path / name).write_bytes(data)
        assert lnln("import", tmp_path / name, "--corpus", "small", store=store).refusal
    for name, value in (("model.pth", {"state_dict": _Runs(canary)}), ("whole.pth", _Runs(canary))):
        torch.save(value, tmp_path / name)
        assert lnln("import-model", tmp_path / name, "--name", "evil", "--corpus", "small", store=store).refusal
    assert not canary.exists()
    assert not list(store.rglob("*.parquet")) and not list(store.glob("models/*"))


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "a//b", "./x", "a/..", "..", "a\\..\\b", "x\0y", ""]
)
@pytest.mark.parametrize("url", ["folder", "s3://bucket/prefix"])
def test_no_path_leads_out_of_a_store(path: str, url: str, tmp_path: Path) -> None:
    """Neither from a manifest nor from a name; said before a server is asked."""
    (tmp_path / "x").write_text("outside")
    store = Store(tmp_path / "folder" if url == "folder" else url)
    verbs: list[Callable[[], object]] = [
        lambda: store.read(path),
        lambda: store.write(path, b"in"),
        lambda: store.open(path),
        lambda: store.remove(path),
        lambda: store.download(path, tmp_path / "target"),
        lambda: store.arrow(path),
    ]
    if url != "folder":
        verbs.remove(verbs[1])  # `write` is the same check; a probe of the server would come first in `create`
    for verb in verbs:
        with pytest.raises(RefusedError, match="plain names"):
            verb()
    assert (tmp_path / "x").read_text() == "outside" and not (tmp_path / "target").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../evil", "{outside}/evil", "a/../../evil", "sub/file", "..", "evil\\x", ""])
def test_a_model_whose_files_lie_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    """The manifest of a folder, or of a store, that somebody else wrote."""
    from lnln.model_store.files import MANIFEST
    from tests.finished_run import finished_run, small_corpus

    store = Store(tmp_path / "store")
    run_id = finished_run(store, small_corpus(store, tmp_path))
    assert lnln("publish", run_id, "--name", "good", store=store.url).code == 0
    (manifest,) = (tmp_path / "store" / "models" / "good").rglob(MANIFEST)
    value = json.loads(manifest.read_text())
    outside = tmp_path / "outside"
    outside.mkdir()
    value["files"][name.format(outside=outside)] = next(iter(value["files"].values()))
    manifest.write_text(json.dumps(value))
    pulled = tmp_path / "deep" / "pulled"
    refused = lnln("pull", "good@best", pulled, store=store.url)
    assert refused.refusal
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.slow
def test_markup_in_transcripts_and_names_stays_text_on_every_page(tmp_path: Path) -> None:
    content = mmsa_content()
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e"
    for name, split in content.items():
        split["raw_text"] = [hostile] * len(split["raw_text"])
        split["id"] = [f"{hostile}{name}$_${number}" for number in range(len(split["id"]))]
    (tmp_path / "hostile.pkl").write_bytes(pickle.dumps(content))
    from lnln.data.manifest import read_features
    from tests.finished_run import finished_run

    store = Store(tmp_path / "store")
    assert lnln("import", tmp_path / "hostile.pkl", "--corpus", "small", store=store.url).code == 0
    run_id = finished_run(store, read_features(store, "small"))
    assert lnln("evaluate", run_id, store=store.url).code == 0
    reported = lnln("report", run_id, "--folder", tmp_path / "report", store=store.url, as_json=False)
    assert reported.code == 0 and "\x1b" not in reported.out
    pages = [path for path in (tmp_path / "report").rglob("*") if path.suffix in (".html", ".md", ".svg")]
    assert pages
    for page in pages:
        text = page.read_text()
        assert "<script>alert" not in text and "<img src=x" not in text and "\x1b" not in text


def test_policies_name_one_bucket_and_no_wildcard_action() -> None:
    for name in ("policy.json", "policy-read.json", "policy-kms.json"):
        for statement in policy(name)["Statement"]:
            assert statement["Effect"] == "Allow" and "Principal" not in statement
            assert not [action for action in statement["Action"] if "*" in action]
            assert statement["Resource"] not in ("*", "arn:aws:s3:::*")
    assert re.fullmatch(r"arn:aws:s3:::[\w-]+/store/\*", policy()["Statement"][0]["Resource"])
