from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import CohortError
from distill.manifest import (
    CohortManifest,
    LabelSpec,
    ModalitySpec,
    PipelineSpec,
    read_manifest,
)

GOOD = """\
name = "small"
synthetic = true

[label]
table = "labels.csv"
column = "subtype"
negative = "A"
positive = "B"
group = "hospital"

[modality.clinical]
table = "clinical.csv"
role = "inference"
pipeline = { core_hours = 0.0 }

[modality.genomics]
table = "genomics.csv.gz"
role = "privileged"
"""


def write(folder: Path, text: str) -> Path:
    (folder / "cohort.toml").write_text(text, encoding="utf-8")
    return folder


def test_reads_roles_and_costs(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, GOOD))
    assert manifest.modalities() == ("clinical", "genomics")
    assert manifest.modalities("privileged") == ("genomics",)
    assert manifest.label.columns == ("subtype", "hospital")
    pipeline = manifest.modality["clinical"].pipeline
    assert pipeline is not None
    assert (pipeline.core_hours, pipeline.gpu_hours, pipeline.cores) == (0.0, 0.0, 1.0)


def test_clinical_comes_first_wherever_it_stands(tmp_path: Path) -> None:
    head, clinical, rest = GOOD.partition("[modality.clinical]")
    own, genomics, other = rest.partition("[modality.genomics]")
    manifest = read_manifest(write(tmp_path, head + genomics + other + clinical + own))
    assert manifest.modalities() == ("clinical", "genomics")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('group = "hospital"', 'grop = "hospital"', ("line 9", "label.grop", "'group'")),
        ('role = "privileged"', 'role = "teacher"', ("line 18", "'teacher'", "'privileged'")),
        ('role = "inference"', 'rolle = "inference"', ("line 13", "unknown key", "'role'")),
        ("core_hours = 0.0", "core_hours = -1.0", ("line 14", "-1.0", "greater than or equal")),
        ("core_hours = 0.0", "core_hours = inf", ("line 14", "inf", "finite")),
        ("core_hours = 0.0", 'core_hours = "2"', ("line 14", "'2'", "number")),
        ("core_hours = 0.0", "core_hour = 0.0", ("line 14", "unknown key", "'core_hours'")),
        ('table = "clinical.csv"', 'table = "../clinical.csv"', ("line 12", "leads out of")),
        ('table = "clinical.csv"', 'table = "/etc/clinical.csv"', ("line 12", "leads out of")),
        ('table = "clinical.csv"', 'table = "clinical.xlsx"', ("line 12", ".parquet")),
        ('table = "clinical.csv"', 'table = "labels.csv"', ("named twice",)),
        ("[modality.clinical]", "[modality.clinic]", ("'clinical'", "always processed")),
        ('role = "inference"', 'role = "privileged"', ("'clinical'", "always processed")),
        ("[modality.genomics]", '[modality."geno+mics"]', ("'geno+mics'", "small letters")),
        ('positive = "B"', 'positive = "A"', ("negative and positive are both 'A'",)),
        ('positive = "B"', "", ("label.positive", "missing")),
        ('group = "hospital"', 'group = "subtype"', ("'subtype' has two roles",)),
        ("synthetic = true", 'synthetic = "yes"', ("line 2", "'yes'", "boolean")),
        ('name = "small"', "name = small", ("not valid TOML", "line 1")),
    ],
)
def test_refuses_and_says_where(
    tmp_path: Path, old: str, new: str, expected: tuple[str, ...]
) -> None:
    assert old in GOOD
    with pytest.raises(CohortError) as caught:
        read_manifest(write(tmp_path, GOOD.replace(old, new, 1)))
    for fragment in ("cohort.toml", *expected):
        assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_a_place_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="not a cohort folder"):
        read_manifest(tmp_path)
    with pytest.raises(CohortError, match="No cohort folder"):
        read_manifest(tmp_path / "nowhere")
    (tmp_path / "cohort.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(CohortError, match="UTF-8"):
        read_manifest(tmp_path)


def test_several_problems_are_counted(tmp_path: Path) -> None:
    text = GOOD.replace("core_hours = 0.0", "core_hours = -1.0, gpu_hours = -2.0")
    with pytest.raises(CohortError, match=r"1 more; 'greenboard cohort check"):
        read_manifest(write(tmp_path, text))


words = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\x7f"),
    min_size=1,
    max_size=12,
)


@given(name=words, note=words, negative=words, hours=st.floats(0, 1e6), cores=st.floats(0.1, 64))
def test_toml_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    note: str,
    negative: str,
    hours: float,
    cores: float,
) -> None:
    manifest = CohortManifest(
        name=name,
        label=LabelSpec(
            table="labels.csv",
            column="y",
            negative=negative,
            positive=negative + "+",
            temporal=("days", "weeks"),
        ),
        modality={
            "clinical": ModalitySpec(
                table="c.csv",
                role="inference",
                pipeline=PipelineSpec(core_hours=hours, cores=cores, note=note),
            ),
            "genomics": ModalitySpec(table="g.parquet", role="ignored"),
        },
    )
    folder = write(tmp_path_factory.mktemp("cohort"), manifest.to_toml())
    assert read_manifest(folder) == manifest


@pytest.mark.shared_data
@pytest.mark.parametrize("cohort", ["tcga_nsclc", "r01_radiogenomics"])
def test_real_manifests_round_trip(shared_data: Path, tmp_path: Path, cohort: str) -> None:
    manifest = read_manifest(shared_data / cohort)
    assert read_manifest(write(tmp_path, manifest.to_toml())) == manifest
