"""A job's data files: keys, the fingerprint of their content, the manifest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ss_pipeline.jobs.inputs import (
    FORMAT_OF_SUFFIX,
    InputDataset,
    InputsManifest,
    Role,
    dataset_key,
    inputs_fingerprint,
)

A, B = "a" * 64, "b" * 64
ROLES: tuple[Role, ...] = ("primary_dataset", "secondary_dataset", "auxiliary_data", "other")


def a_dataset(
    role: Role = "primary_dataset", sha256: str = A, size_bytes: int = 10, name: str = "wages.csv"
) -> InputDataset:
    """A data file as the manifest lists it."""
    key = dataset_key(sha256, role, name)
    return InputDataset(
        dataset_key=key,
        role=role,
        rel_path=f"inputs/{key}.csv",
        original_name=name,
        size_bytes=size_bytes,
        sha256=sha256,
        fingerprint=f"sha256:{sha256}",
        format="csv",
        uploaded_at="2026-01-06T12:00:00+00:00",
    )


DATASETS = st.lists(st.builds(a_dataset, role=st.sampled_from(ROLES), sha256=st.sampled_from([A, B])), max_size=4)


def test_the_fingerprint_is_the_hash_of_roles_hashes_and_sizes_as_the_contract_writes_it() -> None:
    datasets = [a_dataset("secondary_dataset", B, 20), a_dataset("primary_dataset", A, 10)]
    # printf '[{"role":"primary_dataset","sha256":"aaa…","size_bytes":10},{"role":"secondary_dataset",…}]' | sha256sum
    assert inputs_fingerprint(datasets) == "sha256:632d01acaf5d4d038060410b7fae0a7c9df28fd826b87c53a537f6ff4415cff4"


@given(DATASETS)
def test_the_fingerprint_does_not_depend_on_the_order_or_the_names(datasets: list[InputDataset]) -> None:
    renamed = [dataset.model_copy(update={"original_name": "other.csv"}) for dataset in reversed(datasets)]
    assert inputs_fingerprint(renamed) == inputs_fingerprint(datasets)


@pytest.mark.parametrize(
    "other",
    [a_dataset("secondary_dataset"), a_dataset(sha256=B), a_dataset(size_bytes=11)],
    ids=["role", "hash", "size"],
)
def test_another_role_content_or_size_gives_another_fingerprint(other: InputDataset) -> None:
    assert inputs_fingerprint([other]) != inputs_fingerprint([a_dataset()])
    assert inputs_fingerprint([other, a_dataset()]) != inputs_fingerprint([a_dataset()])


def test_the_key_of_a_file_is_the_same_for_the_same_file_in_the_same_place() -> None:
    key = dataset_key(A, "primary_dataset", "wages.csv")
    assert key == dataset_key(A, "primary_dataset", "wages.csv")
    assert len(key) == len("ds_") + 16
    others = {
        dataset_key(B, "primary_dataset", "wages.csv"),
        dataset_key(A, "other", "wages.csv"),
        dataset_key(A, "primary_dataset", "x.csv"),
    }
    assert len(others | {key}) == 4


def test_the_primary_data_set_is_found_wherever_it_stands() -> None:
    manifest = InputsManifest(datasets=[a_dataset("other", B), a_dataset("primary_dataset", A)])
    assert manifest.primary.sha256 == A


def test_a_manifest_survives_storage_with_fields_nobody_here_knows() -> None:
    stored = InputsManifest(datasets=[a_dataset()]).model_dump(mode="json") | {"from": "a later version"}
    again = InputsManifest.model_validate(stored)
    assert again.model_dump(mode="json") == stored


@pytest.mark.parametrize(
    "fields", [{"role": "main"}, {"size_bytes": -1}, {"format": "exe"}, {"sha256": None}, {"rel_path": None}]
)
def test_a_data_file_that_breaks_a_rule_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        InputDataset.model_validate(a_dataset().model_dump() | fields)


def test_suffixes_are_in_lower_case_and_begin_with_a_dot() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in FORMAT_OF_SUFFIX)
