# SPDX-License-Identifier: Apache-2.0
"""The files with which other projects run d3fast name commands and options that exist."""

import re
import shutil
import subprocess

import pytest
import typer.main

from d3fast.cli import app
from docs.check.pages import ROOT, blocks, page

ACTION = ROOT / ".github" / "actions" / "check" / "action.yml"
HOOKS = ROOT / ".pre-commit-hooks.yaml"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
CHECK = typer.main.get_command(app).commands["check"]
OPTIONS = {name for param in CHECK.params for name in (*param.opts, *param.secondary_opts)}


@pytest.fixture(scope="module")
def load():
    return pytest.importorskip("yaml", reason="comes with transformers").safe_load


@pytest.fixture(scope="module")
def action(load):
    return load(ACTION.read_text(encoding="utf-8"))


class TestAction:
    def test_it_is_composite_and_every_script_names_its_shell(self, action):
        assert action["runs"]["using"] == "composite"
        for step in action["runs"]["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert "run" not in step or step["shell"] == "bash"

    def test_every_input_is_described_and_used(self, action):
        steps = str(action["runs"]["steps"])
        for name, given in action["inputs"].items():
            assert given["description"]
            assert f"inputs.{name}" in steps
        assert set(re.findall(r"inputs\.([\w-]+)", steps)) == set(action["inputs"])

    def test_inputs_reach_a_script_as_variables_alone(self, action):
        for step in action["runs"]["steps"]:
            assert "${{" not in step.get("run", "")

    def test_its_options_exist(self, action):
        scripts = "".join(step.get("run", "") for step in action["runs"]["steps"])
        used = set(re.findall(r"--[a-z][\w-]+", scripts)) - {"--quiet"}  # of pip
        assert {"--out", "--sarif", "--bom", "--data"} <= used <= OPTIONS

    def test_outputs_are_those_of_the_step(self, action):
        (check,) = (step for step in action["runs"]["steps"] if step.get("id") == "check")
        for name in action["outputs"]:
            assert f"{name}=$" in check["run"]

    def test_the_script_passes_arguments_and_exit_code(self, action, tmp_path):
        if shutil.which("bash") is None:
            pytest.skip("needs bash")
        (check,) = (step for step in action["runs"]["steps"] if step.get("id") == "check")
        fake = tmp_path / "d3fast"
        fake.write_text('#!/bin/bash\nprintf "%s\\n" "$@" > "$SEEN"\n'
                        'mkdir -p "$RUNNER_TEMP/d3fast-audit"\n'
                        'touch "$RUNNER_TEMP/d3fast-audit/check.sarif"\nexit 1\n')  # fmt: skip
        fake.chmod(0o755)
        done = subprocess.run(
            ["bash", "-e", "-c", check["run"]],
            env={
                "PATH": f"{tmp_path}:/usr/bin:/bin",
                "RUNNER_TEMP": str(tmp_path),
                "GITHUB_OUTPUT": str(tmp_path / "output"),
                "SEEN": str(tmp_path / "seen"),
                "MODEL": "my model; exit 0",
                "DATA": "photos",
                "CHECKPOINT": "",
                "ARGUMENTS": "--seed 3",
                "FAIL_ON": "signs",
            },
            check=False,
        )
        assert done.returncode == 1
        seen = (tmp_path / "seen").read_text().splitlines()
        assert seen[:2] == ["check", "my model; exit 0"]
        assert seen[-4:] == ["--data", "photos", "--seed", "3"]
        assert "--checkpoint" not in seen
        outputs = (tmp_path / "output").read_text()
        assert f"sarif={tmp_path}/d3fast-audit/check.sarif\n" in outputs


def test_the_hook_runs_a_command_that_exists(load):
    (hook,) = load(HOOKS.read_text(encoding="utf-8"))
    assert {"id", "name", "entry", "language", "files"} <= hook.keys()
    assert hook["entry"].split() == ["d3fast", "check"]
    re.compile(hook["files"])


class TestDockerfile:
    STAGES = DOCKERFILE.split("\nFROM ")[1:]

    def test_it_has_two_stages_and_does_not_run_as_root(self):
        assert len(self.STAGES) == 2
        assert "COPY --from=build" in self.STAGES[1]
        (user,) = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
        assert user != "root"
        assert f"useradd --create-home --uid 10001 {user}" in self.STAGES[1]

    def test_its_entry_point_is_the_command(self):
        assert 'ENTRYPOINT ["d3fast"]' in self.STAGES[1]
        assert DOCKERFILE.index("USER ") < DOCKERFILE.index("ENTRYPOINT")

    def test_what_it_copies_exists(self):
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
            for name in line.split()[:-1]:
                assert (ROOT / name).exists(), name

    def test_every_line_is_an_instruction_a_comment_or_a_continuation(self):
        joined = re.sub(r"\\\n", " ", DOCKERFILE)
        known = "FROM|RUN|ENV|COPY|USER|WORKDIR|ENTRYPOINT|CMD"
        for line in filter(None, joined.splitlines()):
            assert re.match(rf"#|({known}) \S", line), line


def test_the_workflows_of_the_page_name_inputs_of_the_action(action, load):
    workflow, hooks = (load(text) for text in blocks(page("gate"), "yaml"))
    steps = workflow["jobs"]["backdoors"]["steps"]
    (used,) = (step for step in steps if "actions/check@" in step.get("uses", ""))
    assert set(used["with"]) <= set(action["inputs"])
    assert workflow["jobs"]["backdoors"]["permissions"]["security-events"] == "write"
    (repository,) = hooks["repos"]
    (hook,) = load(HOOKS.read_text(encoding="utf-8"))
    assert repository["hooks"][0]["id"] == hook["id"]
    given = [part for part in repository["hooks"][0]["args"] if part.startswith("--")]
    assert set(given) <= OPTIONS
