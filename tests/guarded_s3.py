"""An S3 server that asks who comes: moto's, with IAM's users, their keys and their policies.

with guarded_s3() as server:
    key = server.user("trainer", policy)          # environment of one who has the policy's rights, and no other
    subprocess.run([...], env={**os.environ, **key})
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session

from tests.s3 import wait_until_it_answers

REGION = "us-east-1"


@dataclass(frozen=True)
class GuardedS3:
    endpoint: str
    log: Path

    def client(self, service: str) -> Any:
        """Of somebody who may do everything, as long as `lock` was not called."""
        return botocore.session.Session().create_client(
            service, REGION, endpoint_url=self.endpoint, aws_access_key_id="root", aws_secret_access_key="root"
        )

    def user(self, name: str, policy: Mapping[str, Any]) -> dict[str, str]:
        """Variables with the key of a new user who has `policy`."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }

    def lock(self) -> None:
        """From now on everybody needs a key that is known and a right that it has."""
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset-auth", b"0", headers, method="POST")
        with urllib.request.urlopen(request, timeout=10):
            return


@contextmanager
def guarded_s3() -> Iterator[GuardedS3]:
    """A server of its own, open to all until `lock`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
            server = subprocess.Popen(command, stdout=output, stderr=output)
        endpoint = f"http://127.0.0.1:{port}"
        try:
            wait_until_it_answers(endpoint, server, log)
            yield GuardedS3(endpoint, log)
        finally:
            server.terminate()
            server.wait(timeout=10)
