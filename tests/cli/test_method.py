"""The options of a repair and the configuration they make."""

import pytest

from d3fast.cli.method import MethodOptions
from d3fast.detox import D3Config


def chosen(file=None, **options):
    return MethodOptions(**options).chosen(file, 0, None)


def test_without_options_it_is_the_preset_auto():
    made = chosen()
    assert (made.preset, made.config, made.limited) == ("auto", D3Config.auto(), False)


def test_words_become_values():
    made = chosen(restart="2", radius="0.5,1", constraint="none", max_acc_drop="none").config
    assert (made.restart, made.constraint, made.max_acc_drop) == (2, None, None)
    assert chosen(constraint="distance_shell", radius="0.5,1").config.radius == (0.5, 1.0)
    assert chosen(restart="head.*").config.restart == "head.*"
    assert chosen(schedule="cosine").config.schedule == "cosine"
    assert chosen(base="public.pt").config.base == "public.pt"


@pytest.mark.parametrize(
    ("text", "limited"),
    [("[d3]\nmax_acc_drop = 1.0\n", True), ("[d3]\nlr = 1.0\n", False), ("", False)],
)
def test_a_limit_in_the_file_is_the_users(tmp_path, text, limited):
    (tmp_path / "d3.toml").write_text(text)
    assert chosen(tmp_path / "d3.toml").limited is limited
    assert chosen(max_acc_drop="1").limited


def test_the_name_of_the_preset_says_which_file_is_over_it(tmp_path):
    (tmp_path / "d3.toml").write_text('preset = "paper"\n')
    assert chosen(tmp_path / "d3.toml").preset == "d3.toml"
    made = chosen(tmp_path / "d3.toml", preset="authors")
    assert (made.preset, made.config) == ("d3.toml over authors", D3Config.authors())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "best"}, "preset must be one of"),
        ({"radius": "far"}, "radius must be a number, got 'far'"),
        ({"max_acc_drop": "soon"}, "max_acc_drop must be a number, got 'soon'"),
    ],
)
def test_other_words_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        chosen(**options)
