"""Documents of an audit written by hand: one model, one backdoor toward class 3, one repair."""

import base64
import io
import json
from pathlib import Path

from PIL import Image

from d3fast.results.schema.audit import (
    DetectorRow,
    EpochRow,
    InversionRow,
    LayerDistance,
    LayerDistances,
    ModelRow,
    RepairRow,
    VerdictRow,
)
from d3fast.results.schema.pilot import (
    PilotSuspectRow,
    RecommendationRow,
    SensitivityRow,
    TrialRow,
)
from d3fast.results.schema.spectrum import (
    PathPoint,
    PathRow,
    PredictionRow,
    SpectrumModelRow,
    SpectrumRow,
)
from d3fast.results.schema.weights import LayerSpectrumRow, ScanRow
from d3fast.results.store import Results

SUSPECT_SHA, REPAIRED_SHA, OTHER_SHA = 64 * "a", 64 * "b", 64 * "c"
CLASSES = tuple("0123456789")


def png(size=(16, 16), colour=(128, 20, 20)):
    """A picture as the rows have it."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def counts(correct, images):
    """Of a model without a known trigger."""
    rate = {"acc": correct / images, "acc_interval": (0.95, 0.98)}
    return {**rate, "correct": correct, "images": images, "hits": 0, "robust": 0, "triggered": 0}


def model(role="suspect", sha=SUSPECT_SHA, correct=439, images=450):
    """The rows of one model, with a backdoor toward class 3 if it is the suspect."""
    bad = role == "suspect"
    rows = [
        ModelRow(role=role, sha256=sha, parameters=307690, head="fc", **counts(correct, images)),
        *(inversion(role, target) for target in range(10)),
        DetectorRow(
            role=role,
            name="head weights",
            value=5.3 if bad else 1.2,
            threshold=3.5,
            flagged=bad,
            target=3,
            meaning="The weights of the head toward a class stand out.",
        ),
        DetectorRow(
            role=role,
            name="perturbation",
            value=1.1,
            threshold=3.0,
            flagged=False,
            target=8,
            meaning="Answers under small perturbations drift to a class.",
        ),
        VerdictRow(
            role=role,
            suspicious=bad,
            targets=(3,) if bad else (),
            text="Likely backdoored toward class 3." if bad else "No sign.",
        ),
    ]
    return [row.to_row() for row in rows]


def inversion(role, target):
    """Of one class: the suspect's trigger of class 3 is small."""
    found = role == "suspect" and target == 3
    shown = target in ((1, 3, 4, 7) if role == "suspect" else (1, 4, 7, 9))
    return InversionRow(
        role=role,
        target=target,
        name=CLASSES[target],
        norm=4.2 if found else 11.0 + target * 0.7,
        success=0.99,
        index=4.41 if found else 0.1 * target,
        outlier=found,
        picture=png() if shown else None,
    )


def token_rows(tokens="cf", outlier=True):
    """The rows of inspect.json of a text classifier, with a word that makes a text class 3."""
    rows = [row for row in model() if row["kind"] not in ("inversion", "sign")]
    for target in range(10):
        found = target == 3
        row = InversionRow(
            role="suspect",
            target=target,
            name=CLASSES[target],
            norm=1 if found else 3,
            success=1.0 if found else 0.25,
            index=1.46 if found else 0.05 * target,
            outlier=found and outlier,
            tokens=tokens if found else "a b c",
        )
        rows.append(row.to_row())
    result = DetectorRow(
        role="suspect",
        name="token",
        value=1.46,
        threshold=1.15,
        flagged=outlier,
        target=3,
        meaning=f"Effect of one token: highest for '3'. “{tokens}” turns 100 % of the texts.",
        seconds=93.2,
    )
    return [*rows, result.to_row()]


def settings(sha=SUSPECT_SHA, **more):
    """Settings of every document of an audit."""
    return {
        "model": "preact_resnet_narrow",
        "checkpoint": "backdoored.safetensors",
        "sha256": sha,
        "samples": 450,
        "classes": list(CLASSES),
        "seed": 0,
        "options": {},
        **more,
    }


def repair(**changes):
    """The row of a repair that kept its budget."""
    row = RepairRow(
        preset="auto",
        max_acc_drop=1.0,
        acc_drop=0.44,
        acc_drop_low=-0.9,
        acc_drop_high=1.9,
        kept=True,
        epochs=24,
        stopped="held-out accuracy no longer rose",
        seconds=21.4,
        clean_weight=11.2,
        distance=1.31,
        input_sha256=SUSPECT_SHA,
        output_sha256=REPAIRED_SHA,
        output="repaired.safetensors",
        repair_samples=338,
        held_out_samples=112,
    )
    return {**row.to_row(), **changes}


def epochs(count=24):
    """One row per epoch."""
    return [
        EpochRow(
            epoch=i,
            loss=2.0 / i,
            accuracy=1 - 0.8 / i,
            lr=0.06,
            distance=1.3 * (1 - 0.5**i),
            val_accuracy=0.98 - 0.6 / i,
            clean_weight=10 + 0.05 * i,
        ).to_row()
        for i in range(1, count + 1)
    ]


def distance():
    """Distance per layer."""
    convolutions = [f"blocks.{i}.conv{j}.weight" for i in range(4) for j in (1, 2)]
    names = ["stem.weight", *convolutions, "norm.weight", "norm.bias", "fc.weight"]
    layers = [
        LayerDistance(name=name, distance=0.1 * i, norm=2.0, relative=0.05 * i)
        for i, name in enumerate(names, 1)
    ]
    layers.append(LayerDistance(name="fc.bias", distance=1.3, norm=0.0))
    total = LayerDistance(name="all", numel=1200, distance=3.1, norm=8.0, relative=0.3875)
    return LayerDistances(layers=tuple(layers), total=total).to_row()


def inspect_rows():
    """Of inspect.json."""
    return model()


def card_rows(after=None, **changes):
    """Of card.json; ``after`` are the rows of the repaired model."""
    after = model("repaired", REPAIRED_SHA, 437) if after is None else after
    return [*model(), *after, repair(**changes), *epochs(), distance()]


def trial(number):
    """Of a pilot: the later, the less accurate and the less of the trigger is left."""
    acc = 0.99 - 0.004 * number
    return TrialRow(
        trial=number,
        rung=number % 3,
        epochs=4 + 4 * (number % 3),
        distance_weight=(0.3, 1.0, 3.0)[number % 3],
        clean_weight=(1, 10, 100)[number // 3],
        epsilon=0.1,
        acc=acc,
        correct=round(112 * acc),
        samples=112,
        acc_low=acc - 0.02,
        acc_high=min(1.0, acc + 0.01),
        inversion_asr=max(0.02, 0.9 - 0.12 * number),
        distance=0.2 * number,
        seconds=3.0 + number,
        pareto=number in (0, 4, 8),
    )


def pilot_rows():
    """Of pilot.json."""
    parameters = (
        ("distance_weight", (0.3, 1.0, 3.0)),
        ("clean_weight", (1.0, 10.0, 100.0)),
        ("epsilon", (0.05, 0.1, 0.2)),
    )
    rows = [
        *(trial(number) for number in range(9)),
        *(
            SensitivityRow(
                parameter=name,
                values=values,
                acc=(0.98, 0.97, 0.95),
                inversion_asr=(0.5, 0.2, 0.1),
                acc_range=0.03,
                asr_range=0.4,
            )
            for name, values in parameters
        ),
        RecommendationRow(
            trial=8,
            distance_weight=3.0,
            clean_weight=100.0,
            epsilon=0.1,
            why="least left of the trigger within one point of accuracy",
        ),
        PilotSuspectRow(
            acc=0.99,
            correct=111,
            samples=112,
            acc_low=0.95,
            acc_high=1.0,
            inversion_asr=0.99,
            targets=(3,),
            flagged=True,
        ),
    ]
    return [row.to_row() for row in rows]


def spectrum_rows():
    """Of spectrum.json: suspect and repaired model, the clean loss."""
    rows = []
    for name, sharp in (("suspect", 40.0), ("repaired", 90.0)):
        rows.append(SpectrumModelRow(model=name, **counts(97, 100)))
        rows.append(
            SpectrumRow(
                model=name,
                loss="clean",
                value=0.02,
                gradient_norm=0.5,
                size=307690,
                eigenvalues=(sharp, sharp / 2, -1.0),
                residuals=(1e-5, 1e-3, 0.02),
                converged=True,
                trace=5 * sharp,
                trace_error=12.0,
                nodes=((-1.0, 0.0, sharp), (-1.2, 0.1, sharp)),
                weights=((0.1, 0.8, 0.1), (0.1, 0.8, 0.1)),
                products=60,
            )
        )
    points = [PathPoint(at=(t / 10,), clean_loss=0.1 + t / 20, acc=0.97) for t in range(21)]
    rows += [
        PathRow(model="repaired", points=tuple(points), barrier=0.4),
        PredictionRow(
            model="repaired",
            loss="clean",
            start=0.02,
            slope=0.02,
            curvature=2.1,
            predicted=1.1,
            actual=0.87,
            other=0.2,
            distance=10.2,
            residual=0.6,
        ),
    ]
    return [*(row.to_row() for row in rows), {**distance(), "model": "repaired"}]


def weights_rows():
    """The rows of weights.json: one of two detectors flags class 3."""
    scan = ScanRow(sha256=SUSPECT_SHA, parameters=307690, head="fc", classes=10)
    detectors = [
        DetectorRow(
            role="suspect",
            name=name,
            value=value,
            threshold=5.9,
            flagged=value > 5.9,
            target=3,
            meaning=f"{name}: highest for '3'.",
        )
        for name, value in (("head", 2.0), ("head-norm", 9.5))
    ]
    layer = LayerSpectrumRow(
        name="fc.weight", outputs=10, inputs=128, norm=4.0, top=2.0, share=0.25, rank=8.0
    )
    final = VerdictRow(role="suspect", suspicious=True, targets=(3,), text="Possible backdoor.")
    return [row.to_row() for row in (scan, *detectors, layer, final)]


ROWS = {
    "inspect": inspect_rows,
    "pilot": pilot_rows,
    "card": card_rows,
    "spectrum": spectrum_rows,
    "weights": weights_rows,
}


def write(folder, command, rows=None, **changes):
    """Write one document; ``changes`` go into its settings."""
    rows = ROWS[command]() if rows is None else rows
    audit = (
        settings() if command != "spectrum" else {"samples": 100, "data": "digits", "params": "all"}
    )
    path = Path(folder, f"{command}.json")
    program = {"card": "detox", "weights": "check"}.get(command, command)
    Results(f"d3fast {program}", {**audit, **changes}, rows).write(path)
    return path


def edit(path, change):
    """Let a function change a document as it lies on disk."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def calibrate(document):
    """Give the results of a document p-values, for ``edit``."""
    for row in document["rows"]:
        if row["kind"] == "sign":
            row.update(p_value=0.02, adjusted_p_value=0.04)
        if row["kind"] == "verdict":
            row.update(p_value=0.04, rate=0.05, calibration=64 * "d", clean_models=49)


def change(kind, **changes):
    """A change of the first row of a kind, for ``edit``."""

    def apply(document):
        next(row for row in document["rows"] if row["kind"] == kind).update(changes)

    return apply
