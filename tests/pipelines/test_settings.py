"""Settings: what each variable says, and which one wins."""

from __future__ import annotations

import pytest

from pipelines.settings import Settings

VARIABLES = ("LNLN_STORE", "LNLN_DASK", "DASK_SCHEDULER_ADDRESS")


@pytest.mark.parametrize(
    ("environment", "expected", "in_flow"),
    [
        ({}, ("./store", "none"), ("./store", "local")),
        ({"LNLN_STORE": "s3://bucket/lnln"}, ("s3://bucket/lnln", "none"), ("s3://bucket/lnln", "local")),
        ({"LNLN_DASK": "none"}, ("./store", "none"), ("./store", "none")),
        ({"LNLN_DASK": "local"}, ("./store", "local"), ("./store", "local")),
        ({"DASK_SCHEDULER_ADDRESS": "tcp://h:1"}, ("./store", "tcp://h:1"), ("./store", "tcp://h:1")),
        ({"DASK_SCHEDULER_ADDRESS": "tcp://h:1", "LNLN_DASK": "none"}, ("./store", "none"), ("./store", "none")),
        ({"LNLN_STORE": "", "LNLN_DASK": "", "DASK_SCHEDULER_ADDRESS": ""}, ("./store", "none"), ("./store", "local")),
    ],
)
def test_what_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    expected: tuple[str, str],
    in_flow: tuple[str, str],
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (Settings().store, Settings().dask) == expected
    settings = Settings.of_flow(None)
    assert (settings.store, settings.dask) == in_flow
    assert Settings.of_flow("elsewhere").store == Settings(store="elsewhere").store == "elsewhere"
