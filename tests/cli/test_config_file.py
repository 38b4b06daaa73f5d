"""``--config``: one TOML file for all commands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from d3fast.cli.config_file import ConfigFile
from d3fast.cli.groups import with_groups


@dataclass(frozen=True)
class Needed:
    data: Annotated[Path, typer.Option()]


def one(
    needed: Needed,
    config: ConfigFile,
    model: Annotated[str, typer.Argument()] = "none",
    max_drop: Annotated[float, typer.Option()] = 1.0,
    radius: Annotated[str, typer.Option()] = "",
    more: Annotated[list[str] | None, typer.Option()] = None,
    flag: Annotated[bool, typer.Option()] = True,
) -> None:
    typer.echo(f"{needed.data} {model} {max_drop} {radius} {more} {flag}")


def two(config: ConfigFile, steps: Annotated[int, typer.Option()] = 5) -> None:
    typer.echo(f"{steps}")


APP = typer.Typer()
APP.command("one")(with_groups(one))
APP.command("two")(with_groups(two))


@pytest.fixture
def run(tmp_path):
    def invoke(text, *arguments):
        (tmp_path / "d3.toml").write_text(text)
        return CliRunner().invoke(APP, [*arguments, "--config", str(tmp_path / "d3.toml")])

    return invoke


def test_options_come_from_the_file_by_their_names(run):
    text = 'data = "clean"\nmax-drop = 2\nradius = [0.5, 1]\nmore = ["a", "b"]\nflag = false\n'
    assert run(text + 'model = "m"', "one").output == "clean m 2.0 0.5,1 ['a', 'b'] False\n"


def test_the_command_line_overrides_the_table_and_that_the_top_level(run):
    text = 'data = "a"\nmax_drop = 2.0\n[one]\nmax_drop = 3.0\n'
    assert run(text, "one").output.split()[2] == "3.0"
    assert run(text, "one", "--max-drop", "4").output.split()[2] == "4.0"


def test_options_of_other_commands_and_fields_of_d3_are_for_others(run):
    assert (
        run('data = "a"\nsteps = 7\nmomentum = 0.5\n[d3]\nlr = 1.0\n[one]\n', "two").output == "7\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step = 1", "d3.toml: no command has an option 'step'; did you mean 'steps'?"),
        ("[twos]\nsteps = 1", "no command has an option 'twos'; did you mean 'two'?"),
        ("[two]\nradius = 1", r"\[two\] has .*'radius'"),
        ("steps =", "d3.toml is not TOML"),
    ],
)
def test_names_that_nothing_has_are_refused(run, text, message):
    result = run(text, "two")
    with pytest.raises(ValueError, match=message):
        raise result.exception


def test_a_missing_file_is_named():
    result = CliRunner().invoke(APP, ["two", "--config", "nowhere.toml"])
    assert isinstance(result.exception, FileNotFoundError)
