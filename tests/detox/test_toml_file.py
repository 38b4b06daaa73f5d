"""A configuration from a TOML file: fields by name, the rest from a preset."""

import pytest

from d3fast.detox import PRESETS, D3Config, read_config


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "d3.toml"
        path.write_text(text)
        return path

    return write


def test_an_empty_file_is_the_preset(written):
    for name, make in PRESETS.items():
        assert read_config(written(""), name) == make()
    assert read_config(written("")) == D3Config.auto()


def test_fields_are_set_and_the_file_may_name_its_preset(written):
    config = read_config(
        written('preset = "paper"\nlr = 0.5\nradius = [0.5, 1.5]\nconstraint = "distance_shell"\n')
    )
    assert config == D3Config.paper(lr=0.5, radius=(0.5, 1.5), constraint="distance_shell")


def test_a_preset_that_is_asked_for_goes_over_the_files(written):
    path = written('preset = "paper"\nlr = 0.5\n')
    assert read_config(path, "authors") == D3Config.authors(lr=0.5)


def test_none_stands_for_null_where_that_is_a_value(written):
    text = 'constraint = "none"\nmax_acc_drop = "none"\nrestart = 0\n'
    free = D3Config.auto(constraint=None, max_acc_drop=None, restart=0)
    assert read_config(written(text)) == free


@pytest.mark.parametrize(
    ("text", "error_text"),
    [
        ("learning_rate = 1\n", "has no option of D3: 'learning_rate'"),
        ("epoch = 1\n", "did you mean 'epochs'"),
        ("lr = -1\n", "lr must be"),
        ('lr = "fast"\n', "lr must be"),
        ("epochs = 2.5\n", "epochs must be"),
        ('track = "none"\nwarm_start = "none"\n', "warm_start must be"),
        ('preset = "best"\n', "preset must be one of"),
        ("preset = 3\n", "preset must be a name"),
        ("[lr]\nvalue = 1\n", "lr must be"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_file(written, text, error_text):
    with pytest.raises(ValueError, match=error_text) as caught:
        read_config(written(text))
    assert "\n" not in str(caught.value)
    assert "d3.toml" in str(caught.value) or "preset" in error_text
