"""Rows of a pilot with numbers made up, as ``run_pilot`` gives them."""

from d3fast.audit.pilot.advice import recommendation, sensitivity, with_front

SAMPLES = 100
SUSPECT = {
    "kind": "suspect",
    "acc": 0.95,
    "correct": 95,
    "samples": SAMPLES,
    "inversion_asr": 1.0,
    "inversion_lift": 1.0,
    "asr": None,
    "lift": None,
    "acc_low": 0.9,
    "acc_high": 0.98,
    "targets": [3],
    "flagged": True,
}


def run(trial, rung, correct, inverted, asr=None, clean_weight=1.0):
    return {
        "kind": "trial",
        "trial": trial,
        "rung": rung,
        "epochs": 10 * (rung + 1),
        "seconds": 1.0,
        "acc": correct / SAMPLES,
        "correct": correct,
        "samples": SAMPLES,
        "both": min(correct, SUSPECT["correct"]),
        "distance": 1.0,
        "inversion_asr": inverted,
        "inversion_lift": inverted,
        "asr": asr,
        "lift": asr,
        "distance_weight": 1.0,
        "epsilon": 0.1,
        "clean_weight": clean_weight,
        "acc_low": 0.0,
        "acc_high": 1.0,
    }


def rows(given=False):
    """Four settings, of which three go on: two on the front, the other one dominated."""
    asr = (lambda rate: rate / 2) if given else (lambda rate: None)
    first = [(80, 0.2, 1.0), (85, 0.3, 2.0), (70, 0.1, 1.0), (80, 0.2, 2.0)]
    last = [(94, 0.4), (90, 0.1), (88, 0.3)]
    early = with_front([run(i, 0, c, a, asr(a), w) for i, (c, a, w) in enumerate(first)])
    late = with_front([run(i, 1, c, a, asr(a)) for i, (c, a) in enumerate(last)])
    known = 1.0 if given else None
    suspect = {**SUSPECT, "asr": known, "lift": known}
    advice = recommendation(suspect, late, 2.0, 50)
    return [suspect, *early, *late, *sensitivity(early), advice]
