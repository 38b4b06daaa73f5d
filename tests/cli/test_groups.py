"""Groups of options: dataclasses in Python, single options on the command line."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from d3fast.cli.groups import with_groups


@dataclass(frozen=True)
class Shared:
    needed: Annotated[str, typer.Option(help="Needed.")]
    seed: Annotated[int, typer.Option(min=0)] = 3


def run(command, *arguments):
    app = typer.Typer()
    app.command()(with_groups(command))
    return CliRunner().invoke(app, list(arguments))


def show(
    shared: Shared, name: Annotated[str, typer.Argument()], more: Annotated[int, typer.Option()] = 1
) -> None:
    typer.echo(f"{shared} {name} {more}")


def test_a_group_arrives_as_an_instance():
    result = run(show, "x", "--needed", "n", "--more", "2")
    assert result.output == "Shared(needed='n', seed=3) x 2\n"


def test_a_field_without_default_is_a_required_option():
    assert run(show, "x").exit_code == 2


def test_bounds_of_a_field_are_those_of_its_option():
    assert run(show, "x", "--needed", "n", "--seed", "-1").exit_code == 2


def test_the_name_and_help_of_the_command_stay():
    assert with_groups(show).__name__ == "show"


def test_two_options_of_one_name_are_a_defect():
    def twice(shared: Shared, seed: int = 0) -> None: ...

    with pytest.raises(ValueError, match="twice has two options named 'seed'"):
        with_groups(twice)
