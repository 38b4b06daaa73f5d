"""The study of the cost of an inspection, on small shapes."""

from benchmarks.studies.inspection_cost import SHAPES, CostJob, Shape, inspection_cost_table
from d3fast.results.jobs import RunDir
from d3fast.results.store import Results

SMALL = Shape("preact_resnet_tiny", 3, (1, 8, 8), searched=3)


def test_every_detector_is_timed_alone(tmp_path):
    rows = [CostJob(SMALL, name).run(RunDir(tmp_path), False) for name in ("head", "margin")]
    assert [row["detector"] for row in rows] == ["head", "margin"]
    assert 0 <= rows[0]["cpu_seconds"] < rows[1]["cpu_seconds"]
    assert {row["model"] for row in rows} == {"preact_resnet_tiny, 3 classes, 1x8x8"}


def test_the_table_adds_the_detectors_up():
    shape = {"kind": "cost", "model": "a", "classes": 20, "searched": 10}
    rows = [
        {**shape, "detector": name, "cpu_seconds": seconds}
        for name, seconds in (("head", 1.2), ("margin", 16.4))
    ]
    assert inspection_cost_table(Results("", {}, rows)).splitlines()[-1] == "| a | 1 | 30 | 32 |"


def test_the_shapes_are_those_of_few_and_of_many_classes():
    assert {shape.classes for shape in SHAPES} == {10, 100}
