"""Search for the table's options: its settings, seeds, table and choice."""

import pytest

from benchmarks.studies import search
from d3fast.benchmark.plan import plan_jobs
from d3fast.benchmark.presets import BENCHMARK_PRESETS

CPU = BENCHMARK_PRESETS["cpu"]
_D3 = next(repair for repair in CPU.defenses if repair.label == "d3")


def _row(label, attack="sig", **changes):
    numbers = {"acc": 0.9, "asr_excess": 0.01, "ra": 0.5, "der": 0.97}
    base = {"kind": "repair", "refused": None, "defense": label, "attack": attack, "seed": 100}
    return {**base, **numbers, **changes}


@pytest.mark.parametrize("what", search.ATTACKS)
def test_it_looks_at_no_seed_of_a_table(what):
    seeds = set(search.SEEDS[what])
    whole = plan_jobs(search.search_preset(what), list(seeds))
    assert not seeds & set(range(CPU.seeds))
    assert {p.job.seed for p in whole.repairs} == seeds
    assert not whole.relearning


def test_the_table_of_a_search_has_a_line_per_setting_and_a_column_per_attack():
    rows = [_row("a"), _row("a", "wanet", asr_excess=0.03), _row("b"), _row("c", refused="no")]
    lines = search.search_markdown(rows).splitlines()
    heads = "ACC % | ASR % | floor | lift | sig: ASR excess | wanet: ASR excess | RA % | DER %"
    assert lines[0] == f"|  | {heads} |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["a", "b"]
    assert lines[2].split("|")[5:8] == [" – ", " 1.0 ", " 3.0 "]


def test_the_columns_of_the_attacks_are_the_lift_where_all_rows_have_it():
    lines = search.search_markdown([_row("a", lift=0.02), _row("b", lift=0.03)]).splitlines()
    assert "| sig: lift |" in lines[0]
    assert lines[2].split("|")[5:7] == [" 2.0 ", " 2.0 "]
    lines = search.search_markdown([_row("a", lift=0.02), _row("b")]).splitlines()
    assert "| sig: ASR excess |" in lines[0]


def test_a_line_of_it_is_a_mean_over_seeds_and_an_adaptive_attack_has_a_column_of_its_own():
    rows = [_row("a", asr_excess=0.01), _row("a", asr_excess=0.05)]
    rows += [_row("a", adaptive="sam-3", asr_excess=0.5)]
    lines = search.search_markdown(rows).splitlines()
    assert "| sig: ASR excess | sig (sam-3): ASR excess |" in lines[0]
    assert lines[2].split("|")[6:8] == [" 3.0 ", " 50.0 "]


def test_where_all_rows_have_a_lift_acc_and_lift_decide_together():
    rows = [
        _row(choice.label, lift=0.0, acc=0.8)
        for choices in search.CHOICES.values()
        for choice in choices
    ]
    _, second, third = search.CHOICES["fst"]
    rows += [_row(second.label, "wanet", acc=0.9, lift=0.3)]  # 0.7 on average
    rows += [_row(third.label, "wanet", acc=0.85, lift=-0.5)]  # a negative lift is worth nothing
    assert search.best_choices(rows)["fst"] is third


def test_a_defence_of_which_a_choice_was_not_run_has_no_best_choice():
    rows = [_row(choice.label) for choice in search.CHOICES["fst"]]
    assert set(search.best_choices(rows)) == {"fst"}
    assert search.best_choices(rows[1:]) == {}


def test_the_choice_with_the_best_mean_der_is_taken():
    rows = [_row(choice.label) for choices in search.CHOICES.values() for choice in choices]
    rows += [_row(search.CHOICES["fst"][2].label, "wanet", der=0.99)]
    rows += [_row(search.CHOICES["nad"][0].label, "wanet", der=0.5)]
    best = search.best_choices(rows)
    assert best["fst"] is search.CHOICES["fst"][2]
    assert best["nad"] is search.CHOICES["nad"][1]
