"""Folders of runs, from documents written by hand."""

import json

from d3fast.results.schema.benchmark import AttackRow, DefenseRow, DemoRow, SuspectRow
from d3fast.results.store import Results
from tests.audit.report.documents import write


def audit(root, name, *documents, **changes):
    """An audit folder; ``changes`` go into the settings of its documents."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for document in documents or ("inspect", "card"):
        write(folder, document, **changes)
    return folder


def grid_rows():
    """One attack: without a defence and after D3."""
    where = {"seed": 0, "data": "digits", "model": "tiny", "attack": "badnets"}
    before = SuspectRow(defense="none", acc=0.98, asr=0.99, lift=0.97, asr_excess=0.98, **where)
    after = DefenseRow(
        defense="d3", acc=0.96, asr=0.02, lift=0.01, asr_excess=0.01, seconds=3.0, **where
    )
    return [before, after]


def demo_rows():
    """The three models of a demo that a test needs."""
    rates = {"seed": 0, "floor": 0.0, "asr_excess": 0.0, "seconds": 2.0}
    return [
        DemoRow(model="backdoored", acc=0.98, asr=0.99, lift=0.98, **rates),
        DemoRow(model="D3", acc=0.97, asr=0.01, lift=0.01, acc_loss=0.01, **rates),
    ]


def attack_rows():
    """One attack that reaches its goals."""
    return [
        AttackRow(seed=0, attack="badnets", acc=0.98, asr=0.99, lift=0.97, acc_loss=0.0, floor=0.01)
    ]


def run(root, name, document, rows, command="d3fast", **settings):
    """A folder with one results document."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    Results(command, settings, rows).write(folder / document)
    return folder


def everything(root):
    """A run of every kind."""
    audit(root, "net-one")
    audit(root, "net-two", "inspect", "card", seed=1)
    run(root, "bench", "table.json", grid_rows())
    run(root, "demo", "results.json", demo_rows(), data="digits", model="tiny")
    run(root, "attacks", "attacks.json", attack_rows())
    run(root, "one-attack", "card.json", attack_rows(), command="d3fast attack badnets")


def damage(path, at=0):
    """Make one row of a document unreadable."""
    document = json.loads(path.read_text())
    document["rows"][at]["acc"] = "much"
    path.write_text(json.dumps(document))
