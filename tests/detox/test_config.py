"""``D3Config``: the published presets, and choices that are refused."""

import json
from dataclasses import asdict, replace

import pytest

from d3fast import D3Config


def test_the_papers_preset_is_what_the_paper_says():
    config = D3Config.paper()
    assert (config.clean_weight, config.epsilon) == (10.0, 0.1)
    assert (config.reduction, config.constraint, config.warm_start) == (
        "batch_mean",
        "norm_ball",
        "random",
    )
    assert (config.scope, config.distance_p, config.track) == ("tensor", 2.0, "head")
    assert config.weights() == (10.0, 1.0)  # the objective has no division by lambda + 1


def test_the_authors_preset_is_what_their_code_does():
    config = D3Config.authors()
    assert (config.clean_weight, config.epsilon) == (0.5, 0.1)
    assert (config.reduction, config.constraint, config.warm_start) == (
        "per_sample",
        "norm_sphere",
        "random",
    )
    assert (config.lr, config.momentum, config.weight_decay) == (0.01, 0.9, 0.0)
    assert (config.schedule, config.epochs) == ("cosine", 100)
    assert (config.scope, config.radius, config.normalize) == ("tensor", None, True)


def test_presets_can_be_changed_field_by_field():
    assert D3Config.paper(lr=0.5, clean_weight=2.0) == replace(
        D3Config.paper(), lr=0.5, clean_weight=2.0
    )
    assert D3Config.authors(epochs=7) == replace(D3Config.authors(), epochs=7)
    with pytest.raises(TypeError, match="epoch"):
        D3Config.paper(epoch=7)


@pytest.mark.parametrize(
    ("clean_weight", "normalize", "scale"),
    [(10.0, True, 1 / 11), (10.0, False, 1), (0.5, True, 1), (1.0, True, 1), (3.0, True, 1 / 4)],
)
def test_the_loss_is_divided_by_lambda_plus_1_where_lambda_exceeds_1(
    clean_weight, normalize, scale
):
    config = D3Config(clean_weight=clean_weight, distance_weight=2.0, normalize=normalize)
    assert config.weights() == pytest.approx((clean_weight * scale, 2 * scale))
    assert config.weights(3.0) == pytest.approx((0.75, 0.5) if normalize else (3.0, 2.0))


@pytest.mark.parametrize(
    ("changes", "error_text"),
    [
        ({"clean_weight": -1.0}, r"clean_weight must be finite and >= 0, got -1\.0"),
        ({"clean_weight": float("nan")}, "clean_weight must be finite and >= 0, got nan"),
        ({"averaging": 1.5}, r"averaging must be <= 1, got 1\.5"),
        ({"averaging": -0.5}, r"averaging must be finite and >= 0, got -0\.5"),
        ({"dual_step": -1.0}, r"dual_step must be finite and >= 0, got -1\.0"),
        ({"epsilon": -0.1}, r"epsilon must be finite and >= 0, got -0\.1"),
        ({"reduction": "sum"}, "reduction must be one of .* got 'sum'"),
        ({"distance_weight": -1.0}, r"distance_weight must be .* got -1\.0"),
        ({"distance_p": 0.5}, r"distance_p must be .* got 0\.5"),
        ({"scope": "model"}, "scope must be one of .* got 'model'"),
        ({"constraint": "sphere"}, "constraint must be one of .* got 'sphere'"),
        ({"constraint": "distance_ball"}, "needs radius=.* got radius=None"),
        ({"constraint": "distance_shell", "radius": (2.0, 1.0)}, "the ball 1.0 is smaller"),
        ({"radius": -0.5}, r"radius must be .* got -0\.5"),
        ({"radius_unit": "cm"}, "radius_unit must be one of .* got 'cm'"),
        ({"warm_start": "warm"}, "warm_start must be one of 'near', .* got 'warm'"),
        ({"epochs": 0}, "epochs must be an integer >= 1, got 0"),
        ({"epochs": 1.5}, r"epochs must be an integer >= 1, got 1\.5"),
        ({"epochs": True}, "epochs must be an integer >= 1, got True"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"lr": -0.1}, r"lr must be .* got -0\.1"),
        ({"momentum": float("nan")}, "momentum must be .* got nan"),
        ({"weight_decay": "0"}, "weight_decay must be a number, got '0'"),
        ({"schedule": "linear"}, "schedule must be one of 'cosine', 'constant', got 'linear'"),
        ({"optimizer": "adam"}, "optimizer must be one of 'sgd', 'adamw', got 'adam'"),
        ({"optimizer": "adamw", "momentum": 1.0}, r"betas\[0\] must be < 1, got 1\.0"),
        ({"optimizer": "adamw", "beta2": 1.0}, r"betas\[1\] must be < 1, got 1\.0"),
        ({"batch_norm": "eval"}, "batch_norm must be one of 'train', 'frozen', got 'eval'"),
        ({"constraint_p": 0.5}, r"constraint_p must be finite and >= 1, got 0\.5"),
        (
            {"constraint_p": 1.0, "constraint": None},
            "constraint with constraint_p must be one of 'norm_sphere', 'norm_ball', got None",
        ),
        (
            {"constraint_p": 1.0, "scope": "group"},
            "constraint_p must be one of 'tensor'",
        ),
        ({"backend": "gpu"}, "backend must be one of .* got 'gpu'"),
    ],
    ids=str,
)
def test_choices_out_of_range_are_refused_by_name_and_value(changes, error_text):
    with pytest.raises(ValueError, match=f"^.*{error_text}"):
        D3Config(**changes)


def test_a_configuration_survives_json_and_cannot_be_changed():
    config = D3Config.paper(seed=3)
    assert D3Config(**json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(AttributeError):
        config.lr = 1.0
