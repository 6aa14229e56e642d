"""What the store holds, from one `up` to the next: its server keeps it in memory, so `down` copies it to `store/`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from s3fs import S3FileSystem

from infra.stack import processes
from infra.stack.parts import BUCKET, Layout, client_environment
from lnln.errors import RefusedError


def put_back(layout: Layout, say: Callable[[str], None]) -> None:
    """The bucket, with what the last `down` put away."""
    folder = layout.folder / "store"
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    client = _client(layout)
    try:
        client.call_s3("create_bucket", Bucket=BUCKET)
        if files:
            client.put([str(path) for path in files], [f"{BUCKET}/{path.relative_to(folder)}" for path in files])
    except OSError as error:
        raise RefusedError(
            f"the store of the stack did not take the {len(files)} files in {folder} back ({error}); "
            f"{processes.log_of('store', layout.folder)} may say why"
        ) from error
    _filled(layout).write_text(_who(layout))
    if files:
        say(f"{len(files)} files of before are in the store")


def put_away(layout: Layout) -> None:
    """All of the bucket, whole or not at all; nothing of a server that never had what was put away before."""
    if not _filled(layout).exists() or _filled(layout).read_text() != _who(layout):
        return
    client = _client(layout)
    paths = client.find(BUCKET)
    folder, new = layout.folder / "store", layout.folder / "store.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    if paths:
        client.get(paths, [str(new / path.removeprefix(f"{BUCKET}/")) for path in paths])
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


def _filled(layout: Layout) -> Path:
    """Says which process has what was put away."""
    return layout.folder / "run" / "store.filled"


def _who(layout: Layout) -> str:
    return str(processes.read_record("store", layout.folder))


def _client(layout: Layout) -> S3FileSystem:
    settings = client_environment(layout)
    return S3FileSystem(
        key=settings["AWS_ACCESS_KEY_ID"],
        secret=settings["AWS_SECRET_ACCESS_KEY"],
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        use_listings_cache=False,
        skip_instance_cache=True,
        client_kwargs={"region_name": settings["AWS_DEFAULT_REGION"]},
    )
