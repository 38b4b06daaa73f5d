"""A calibration written by hand, of a linear model."""

import numpy as np
from torch import nn

from d3fast.audit.architecture import architecture_digest
from d3fast.audit.calibration import classes_digest, options_text
from d3fast.audit.inspect import InspectOptions
from d3fast.results.schema.calibration import CalibrationRow, DetectorScore, ScoredModelRow
from d3fast.results.store import Results

CLASSES = ("bird", "cat", "dog")
NAMES = ("patch", "head", "shift", "margin")
OPTIONS = InspectOptions()


def linear(shape=(1, 2, 2), classes=3):
    """The model that the calibration is of."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes))


def scores(values, statistics=None, names=NAMES):
    return tuple(
        DetectorScore(name=name, value=value, target=0, statistics=statistics)
        for name, value in zip(NAMES, values, strict=True)
        if name in names
    )


def calibration_rows(
    model=None,
    *,
    shape=(1, 2, 2),
    classes=3,
    models=39,
    backdoored=2,
    largest=None,
    names=NAMES,
):
    """Clean models with scores in 1..3, and backdoored ones that head sees every second time.

    Statistics of the classes are in 0..1, those of the class ``largest`` 9 higher; without it,
    there are none.
    """
    draws = np.random.default_rng(0)
    model = linear(shape, classes) if model is None else model
    about = CalibrationRow(
        model="linear",
        architecture=architecture_digest(model),
        data="dots",
        samples_sha256=64 * "d",
        shape=shape,
        classes=classes,
        train=30,
        epochs=2,
        inspected=10,
        options=options_text(OPTIONS.inversion, OPTIONS.classes),
        classes_sha256=classes_digest(CLASSES),
    )

    def statistics():
        if largest is None:
            return None
        return tuple((draws.uniform(0, 1, classes) + 9 * (np.arange(classes) == largest)).tolist())

    clean = [
        ScoredModelRow(
            seed=k, acc=0.9, scores=scores(draws.uniform(1, 3, 4).tolist(), statistics(), names)
        )
        for k in range(models)
    ]
    bad = [
        ScoredModelRow(
            seed=1000 + k,
            attack="badnets",
            target=1,
            acc=0.9,
            asr=1.0,
            scores=scores([2.0, 2.0 if k % 2 else None, 2.0, 2.0], statistics(), names),
        )
        for k in range(backdoored)
    ]
    return about, *clean, *bad


def write_calibration(path, *args, **kwargs):
    Results("d3fast calibrate", {}, calibration_rows(*args, **kwargs)).write(path)
    return path
