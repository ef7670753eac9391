"""The registry holds each fit once, whoever registers it."""

from __future__ import annotations

from mlflow import MlflowClient

from infra.registry import RegisteredVersion, registered_before, the_one_version
from infra.settings import Settings

Registry = tuple[Settings, MlflowClient, str]


def test_of_two_machines_that_register_a_fit_at_once_one_version_stays(registry: Registry) -> None:
    _, client, run_id = registry
    client.create_registered_model("fast")
    made = [
        client.create_model_version("fast", f"runs:/{run_id}/model", run_id, tags={"padflow.fit_key": fit_key})
        for fit_key in ("before", "same", "same")
    ]
    _, first, second = (RegisteredVersion("fast", str(version.version), run_id) for version in made)
    # Both have registered before either looks.
    assert the_one_version(client, "fast", "same", second) == first
    assert the_one_version(client, "fast", "same", first) == first
    versions = client.search_model_versions("name = 'fast'")
    assert sorted(str(version.version) for version in versions) == ["1", "2"]
    assert str(client.get_model_version_by_alias("fast", "challenger").version) == "2"
    assert registered_before(client, "fast", "same") == first
    assert registered_before(client, "fast", "another") is None
