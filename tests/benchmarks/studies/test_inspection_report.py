"""Tables and figure of the inspection study."""

from benchmarks.studies import inspection_rates as counted
from benchmarks.studies.inspection_report import (
    areas_table,
    inspect_table,
    rates_table,
    roc_figure,
    tries_table,
)
from d3fast.results.store import Results
from tests.benchmarks.studies.test_inspection_rates import ROWS, SPREAD, row


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_tables_have_a_line_per_kind_of_model_and_per_rate():
    results = Results("", {}, [*counted.choices(ROWS), *counted.rates(ROWS, 0.025), *ROWS])
    lines = inspect_table(results, "digits").splitlines()
    assert [cells(line)[0] for line in lines[2:]] == ["every attack", "badnets", "clean"]
    assert lines[3].endswith("| 2 (21–94 %) | 1 |")
    assert len(rates_table(results).splitlines()) == 2 + len(counted.RATES)


def test_the_table_of_areas_says_how_many_models_a_detector_saw():
    slow = {"slow": {"value": 9.0, "target": 0}}
    rows = [*SPREAD, row("sig", 9.0), row("sig", 9.0)]
    for at in (0, 4):
        rows[at] = {**rows[at], "signs": {**rows[at]["signs"], **slow}}
    results = Results("", {}, [*counted.rates(rows, 0.01), *counted.areas(rows, 0.01), *rows])
    heads, _, clean, every, sig = map(cells, areas_table(results, "digits").splitlines())
    assert (clean[0], clean[heads.index("patch")], clean[heads.index("named")]) == (
        "clean",
        "–",
        "–",
    )
    assert (every[0], sig[0], sig[1]) == ("every attack", "sig", "2")
    assert sig[heads.index("slow")] == "0.50 (of 1)"
    assert sig[heads.index("patch")] == "1.00"
    assert sig[heads.index("named")] == "2"
    assert sig[heads.index("found at 1 %")] == "2"


def test_the_figure_has_a_curve_per_detector_and_one_of_all():
    (axes,) = roc_figure([*SPREAD, row("sig", 9.0)], "digits").axes
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == ["all four", "patch", "head", "shift", "margin"]


def tried(attack, value, target=None, named=0):
    row = {"kind": "try", "set": "digits", "variant": "default", "attack": attack}
    return {**row, "value": value, "target": target, "named": named, "cpu_seconds": 4.0}


def test_the_table_of_tries_compares_backdoored_models_with_clean_ones():
    rows = [tried("clean", 1.0), tried("clean", 3.0)]
    rows += [tried("sig", 2.0, 0, 0), tried("sig", 4.0, 0, 5)]
    lines = tries_table(Results("", {}, rows)).splitlines()
    assert lines[2].split("|")[3:8] == [" clean ", " 1.0, 3.0 ", " – ", " – ", " 4.0 "]
    assert lines[3].split("|")[3:7] == [" sig ", " 2.0, 4.0 ", " 1 of 2 ", " 0.75 "]
