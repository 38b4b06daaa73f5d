"""The tables of the benchmark."""

import pytest
from msgspec.structs import replace

from d3fast.benchmark.report.numbers import grid
from d3fast.benchmark.report.tables import (
    ablation_tables,
    grid_table,
    reactivation_table,
    relearning_table,
    summary_table,
)
from d3fast.results.schema.benchmark import DefenseRow, SuspectRow
from d3fast.results.table import to_markdown


@pytest.fixture
def small(grid_rows):
    """Two attacks, three defences, two seeds."""
    return grid_rows(
        seeds=2, attacks=("badnets", "wanet"), adaptive=(), defenses=("fine-tuning", "d3", "anp")
    )


def lines_of(table):
    return {name: dict(zip(table.headings[1:], cells, strict=True)) for name, cells in table.lines}


def refuse(rows, defense, **where):
    """Rows as the grid gives them where a defence refused: no numbers, a reason."""
    numbers = dict.fromkeys(("acc", "asr", "ra", "asr_excess", "der", "seconds"))
    return [
        replace(row, **numbers, refused="needs batch norm")
        if row.defense == defense and all(getattr(row, k) == v for k, v in where.items())
        else row
        for row in rows
    ]


def test_the_summary_ends_with_what_there_is_to_compare_with(small):
    table = summary_table(grid(small), small)
    assert [name for name, _ in table.lines] == [
        "d3",
        "anp",
        "fine-tuning",
        "none",
        "clean model",
    ]
    assert lines_of(table)["clean model"]["ACC %"].text == "92.5"
    assert lines_of(table)["none"]["seconds"].text == "–"


def test_the_worst_lift_names_its_attack(small):
    rows = [
        replace(row, lift=0.5)
        if isinstance(row, DefenseRow) and (row.defense, row.attack, row.seed) == ("d3", "wanet", 1)
        else row
        for row in small
    ]
    worst = lines_of(summary_table(grid(rows), rows))["d3"]["worst lift"]
    assert (worst.text, worst.detail) == ("50.0", "wanet")


def test_one_seed_has_no_range(grid_rows):
    rows = grid_rows(seeds=1, adaptive=())
    table = lines_of(summary_table(grid(rows), rows))
    assert all(
        not cell.detail
        for line in table.values()
        for heading, cell in line.items()
        if heading != "worst lift"
    )


def test_a_refused_cell_is_a_dash_with_its_reason(small):
    rows = refuse(small, "anp", attack="wanet")
    table = grid_table(grid(rows))
    cell = lines_of(table)["wanet"]["anp"]
    assert (cell.text, cell.shade) == ("–", None)
    assert cell.note == "needs batch norm"
    assert "| – <sup>1</sup> |" in to_markdown(table)


def test_a_defence_refused_everywhere_is_a_line_of_dashes(small):
    rows = refuse(small, "anp")
    line = lines_of(summary_table(grid(rows), rows))["anp"]
    assert {cell.text for cell in line.values()} == {"–"}


def test_missing_cells_and_seeds_are_said(small):
    rows = [
        row
        for row in small
        if (row.defense, row.attack) != ("anp", "wanet")
        and (row.defense, row.attack, row.seed) != ("d3", "badnets", 1)
    ]
    table = grid_table(grid(rows))
    lines = lines_of(table)
    assert lines["wanet"]["anp"].note == "not run yet"
    assert lines["badnets"]["d3"].note == "1 of 2 seeds"


def test_a_defence_measured_in_part_is_not_the_best_of_the_summary(small):
    rows = refuse(small, "d3", attack="wanet")
    table = summary_table(grid(rows), rows)
    line = lines_of(table)["d3"]
    assert not any(cell.bold for cell in line.values())
    assert table.notes == ("mean over 2 of 4 models: not to be ranked with the others",)


def test_a_refused_attack_keeps_its_floor_and_gives_its_reason(small):
    rows = [
        replace(
            row,
            **dict.fromkeys(("acc", "asr", "asr_excess", "der")),
            refused="floor" if isinstance(row, SuspectRow) else "no suspect: floor",
        )
        if row.attack == "wanet"
        else row
        for row in small
    ]
    table = grid_table(grid(rows))
    line = lines_of(table)["wanet"]
    assert line["floor"].text != "–"
    assert {line[name].text for name in ("none", "d3", "anp")} == {"–"}
    assert table.notes == ("floor",)


def test_the_best_of_a_line_is_bold_ties_as_table_included():
    def row(defense, acc, asr):
        return DefenseRow(
            seed=0, attack="a", defense=defense, acc=acc, asr=asr, floor=0.01, lift=asr - 0.001
        )

    table = grid_table(grid([row("x", 0.9001, 0.02), row("y", 0.9002, 0.03)]))
    assert "**90.0** / **2.0 / 1.9**" in to_markdown(table)
    assert "**90.0** / 3.0 / 2.9" in to_markdown(table)


def test_a_negative_lift_is_shown_as_it_is(small):
    rows = [
        replace(row, lift=-0.013) if isinstance(row, DefenseRow) and row.defense == "d3" else row
        for row in small
    ]
    assert lines_of(summary_table(grid(rows), rows))["d3"]["lift"].text == "−1.3"


def without_lift(rows):
    return [replace(row, lift=None) if hasattr(row, "lift") else row for row in rows]


def test_results_without_lift_show_asr_floor_and_a_dash(small):
    rows = without_lift(small)
    line = lines_of(summary_table(grid(rows), rows))["d3"]
    assert line["lift"].text == "–"
    assert "–" not in {line[key].text for key in ("ASR %", "floor", "worst ASR excess")}
    assert lines_of(grid_table(grid(rows)))["wanet"]["d3"].detail.endswith(" / –")


def test_suspects_of_an_older_run_do_not_hide_the_lift_of_their_repairs(small):
    rows = [replace(row, lift=None) if isinstance(row, SuspectRow) else row for row in small]
    lines = lines_of(summary_table(grid(rows), rows))
    assert lines["d3"]["lift"].text != "–"
    assert "worst lift" in lines["d3"]


def test_acc_is_shown_against_the_suspect_and_against_fine_tuning(small):
    rows = [replace(r, acc_loss=0.034) if isinstance(r, DefenseRow) else r for r in small]
    line = lines_of(summary_table(grid(rows), rows))["anp"]
    assert line["ACC − suspect"].text == "−3.4"
    assert line["ACC − FT"].text.startswith("−")


def test_suspects_that_a_defence_left_alone_are_counted_in_a_note(small):
    rows = [
        replace(row, epochs=5 * (row.attack == "wanet"), asr=0.5 + 0.1 * row.seed, lift=0.4)
        if row.defense == "anp"
        else row
        for row in small
    ]
    notes = summary_table(grid(rows), rows).notes
    assert notes == ("2 of 4 suspects returned unchanged; the others: ASR 55.0 %, lift 40.0",)


def test_relearning_is_sorted_by_area_and_references_are_never_best(grid_rows):
    table = relearning_table(grid_rows())
    names = [name for name, _ in table.lines]
    assert names == ["clean model", "d3", "sau", "fine-tuning", "none"]
    assert lines_of(table)["d3"]["mean"].bold
    assert not lines_of(table)["clean model"]["mean"].bold


def test_reactivation_is_sorted_by_lift_and_shows_every_condition(grid_rows):
    table = reactivation_table(grid_rows())
    assert [name for name, _ in table.lines] == ["clean model", "d3", "sau", "fine-tuning", "none"]
    cells = lines_of(table)["d3"]
    shown = {heading: cell.text for heading, cell in cells.items()}
    assert shown == {
        "plain": "2.0",
        "white box": "20.0",
        "no trigger": "10.0",
        "lift": "10.0",
        "transfer": "10.0",
        "existence %": "10.0",
    }
    assert {heading for heading, cell in cells.items() if cell.bold} == {
        *("plain", "white box", "lift", "transfer", "existence %")
    }
    assert not any(cell.bold for cell in lines_of(table)["clean model"].values())


def test_ablations_have_a_line_per_value(grid_rows):
    tables = ablation_tables(grid_rows())
    assert [name for name, _ in tables["lambda"].lines] == ["0.5", "1", "2", "5", "10", "20"]
    assert tables["lambda"].headings[0] == "d3: lambda"
    assert tables["clean share"].lines[-1][0] == "fine-tuning, 0.1"


@pytest.mark.parametrize(
    "make",
    [lambda: grid_table(grid([])), lambda: relearning_table([]), lambda: reactivation_table([])],
)
def test_nothing_is_an_empty_table(make):
    assert make().lines == ()
    assert ablation_tables([]) == {}
