"""Which layer is the head: by the model's word, by name, by order; and what is said about it."""

import logging

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from d3fast import find_head, param_groups


class Named(nn.Module):
    """A model with the given children, in order."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


class Timm(Named):
    """As timm: the model itself says what its classifier is."""

    def get_classifier(self):
        return self.scorer


class Language(Named):
    """As language models of transformers: the head is the output embedding."""

    def get_output_embeddings(self):
        return self.embed_out


class TimmDistilled(Named):
    """As timm's distilled transformers: two heads, whose mean is the answer."""

    def get_classifier(self):
        return self.head, self.head_dist


def backbone():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))


HEADS = {
    "last_linear": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)),
        "2",
    ),
    "the_model_itself": (lambda: nn.Linear(4, 2), ""),
    "lenet_numbers_its_layers": (
        lambda: Named(conv1=nn.Conv2d(1, 6, 5), fc1=nn.Linear(6, 8), fc2=nn.Linear(8, 10)),
        "fc2",
    ),
    "conventional_name_before_position": (
        lambda: Named(fc=nn.Linear(4, 3), projector=nn.Linear(4, 8)),
        "fc",
    ),
    "conventional_name_of_a_sequence": (
        lambda: Named(
            features=nn.Conv2d(1, 4, 3),
            classifier=nn.Sequential(nn.Dropout(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)),
            extra=nn.Linear(4, 3),
        ),
        "classifier.3",
    ),
    "squeezenet_scores_by_a_1x1_convolution": (
        lambda: Named(
            features=backbone(),
            classifier=nn.Sequential(nn.Dropout(), nn.Conv2d(8, 5, 1), nn.ReLU()),
        ),
        "classifier.1",
    ),
    "all_convolutions": (
        lambda: nn.Sequential(backbone(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1)),
        "1",
    ),
    "torchvision_deeplab": (
        lambda: Named(
            backbone=backbone(),
            classifier=nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 21, 1)),
            aux_classifier=nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 21, 1)),
        ),
        "classifier.2",
    ),
    "transformers_segformer": (
        lambda: Named(
            segformer=backbone(),
            decode_head=Named(linear_fuse=nn.Conv2d(8, 8, 1), classifier=nn.Conv2d(8, 5, 1)),
        ),
        "decode_head.classifier",
    ),
    "unet": (lambda: Named(inc=backbone(), up=nn.Conv2d(8, 4, 3), outc=nn.Conv2d(4, 2, 1)), "outc"),
    "transformers_bert_has_a_pooler": (
        lambda: Named(
            bert=Named(encoder=nn.Linear(4, 4), pooler=nn.Linear(4, 4)), classifier=nn.Linear(4, 2)
        ),
        "classifier",
    ),
    "transformers_distilbert_has_a_layer_before": (
        lambda: Named(
            distilbert=nn.Linear(4, 4), pre_classifier=nn.Linear(4, 4), classifier=nn.Linear(4, 2)
        ),
        "classifier",
    ),
    "transformers_roberta_has_a_block": (
        lambda: Named(
            roberta=nn.Linear(4, 4), classifier=Named(dense=nn.Linear(4, 4), out=nn.Linear(4, 2))
        ),
        "classifier.out",
    ),
    "transformers_xlnet_projects_to_logits": (
        lambda: Named(sequence_summary=nn.Linear(4, 4), logits_proj=nn.Linear(4, 2)),
        "logits_proj",
    ),
    "transformers_score": (
        lambda: Named(model=Named(layers=nn.Linear(4, 4)), score=nn.Linear(4, 2, bias=False)),
        "score",
    ),
    "timm_asks_the_model": (lambda: Timm(scorer=nn.Linear(4, 3), fc=nn.Linear(3, 3)), "scorer"),
    "timm_asks_for_a_block": (
        lambda: Timm(scorer=nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)), fc=nn.Linear(3, 3)),
        "scorer.1",
    ),
    "transformers_asks_a_language_model": (
        lambda: Language(embed_out=nn.Linear(4, 9), probe=nn.Linear(4, 9)),
        "embed_out",
    ),
    "transformers_language_model_without_head": (
        lambda: Language(embed_out=None, fc=nn.Linear(4, 9)),
        "fc",
    ),
    "timm_without_classifier": (
        lambda: Timm(scorer=nn.Identity(), stem=nn.Conv2d(1, 2, 3), fc=nn.Linear(3, 3)),
        "fc",
    ),
    "inception_has_auxiliary_logits": (
        lambda: Named(stem=backbone(), AuxLogits=Named(fc=nn.Linear(8, 10)), fc=nn.Linear(8, 10)),
        "fc",
    ),
    "auxiliary_logits_come_last": (
        lambda: Named(stem=backbone(), top=nn.Linear(8, 10), AuxLogits=nn.Linear(8, 10)),
        "top",
    ),
    "nothing_but_auxiliary_logits": (
        lambda: Named(stem=nn.Conv2d(3, 8, 3), norm=nn.BatchNorm2d(8), aux=nn.Linear(8, 10)),
        "aux",
    ),
    "a_projection_made_after_the_classifier": (
        lambda: Named(encoder=backbone(), top=nn.Linear(8, 10), projection=nn.Linear(8, 128)),
        "top",
    ),
    "two_kinds_of_head": (
        lambda: Named(encoder=backbone(), cls_head=nn.Linear(8, 10), proj_head=nn.Linear(8, 128)),
        "cls_head",
    ),
    "a_name_that_says_head_before_position": (
        lambda: Named(encoder=backbone(), class_logits=nn.Linear(8, 10), top=nn.Linear(8, 4)),
        "class_logits",
    ),
    "a_wrapper_is_looked_through": (
        lambda: nn.DataParallel(Named(fc=nn.Linear(4, 3), projector=nn.Linear(4, 8))),
        "module.fc",
    ),
    "a_compiled_model_is_looked_through": (
        lambda: Named(_orig_mod=Named(fc=nn.Linear(4, 3), projector=nn.Linear(4, 8))),
        "_orig_mod.fc",
    ),
    "a_normalisation_in_front_is_looked_through": (
        lambda: nn.Sequential(nn.Identity(), Named(fc=nn.Linear(4, 3), rotation=nn.Linear(4, 4))),
        "1.fc",
    ),
    "a_wrapped_model_is_asked_too": (
        lambda: Named(net=Timm(scorer=nn.Linear(4, 3), fc=nn.Linear(3, 3))),
        "net.scorer",
    ),
    "a_backbone_that_kept_its_old_head": (
        lambda: nn.Sequential(Named(conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(4, 9)), nn.Linear(9, 2)),
        "1",
    ),
    "heads_in_a_dictionary": (
        lambda: Named(stem=backbone(), heads=nn.ModuleDict({"a": nn.Linear(8, 4)})),
        "heads.a",
    ),
    "lazy": (lambda: Named(stem=nn.LazyConv2d(8, 3), out=nn.LazyLinear(3)), "out"),
    "weight_norm": (
        lambda: Named(body=nn.Linear(4, 4), top=parametrizations.weight_norm(nn.Linear(4, 3))),
        "top",
    ),
    "a_parametrization_with_layers_of_its_own": (
        lambda: nn.utils.parametrize.register_parametrization(
            nn.Linear(4, 4, bias=False), "weight", nn.Linear(4, 4)
        ),
        "",
    ),
    "efficientnet_pytorch_names_its_last_convolution_a_head": (
        lambda: Named(stem=backbone(), _conv_head=nn.Conv2d(8, 9, 1), _fc=nn.Linear(9, 3)),
        "_fc",
    ),
    "a_3x3_convolution_scores_nothing": (
        lambda: Named(fc=nn.Conv2d(4, 4, 3), other=nn.Linear(3, 3)),
        "other",
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_find_head(case):
    make, want = HEADS[case]
    model = make()
    name, head = find_head(model)
    assert name == want
    assert model.get_submodule(name) is head


DOUBTFUL = {
    "timm_distilled": (
        lambda: TimmDistilled(head=nn.Linear(4, 3), head_dist=nn.Linear(4, 3)),
        ["head", "head_dist"],
    ),
    "a_distillation_head_by_name": (
        lambda: Named(body=nn.Linear(4, 4), head=nn.Linear(4, 3), head_dist=nn.Linear(4, 3)),
        ["head", "head_dist"],
    ),
    "transformers_deit_with_teacher": (
        lambda: Named(
            deit=nn.Linear(4, 4),
            cls_classifier=nn.Linear(4, 3),
            distillation_classifier=nn.Linear(4, 3),
        ),
        ["cls_classifier", "distillation_classifier"],
    ),
    "early_exits": (
        lambda: Named(
            stem=backbone(), heads=nn.ModuleList(nn.Linear(8, 3) for _ in range(3)), top=nn.ReLU()
        ),
        ["heads.2", "heads.0", "heads.1"],
    ),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_a_second_head_of_as_many_classes_is_a_warning_that_says_how_to_track_both(case):
    make, names = DOUBTFUL[case]
    model = make()
    with pytest.warns(UserWarning, match="may all be heads") as caught:
        assert find_head(model)[0] == names[0]
    message = str(caught[0].message)
    assert message.startswith(f"{', '.join(names)} may all be heads, {names[0]!r} is taken")
    pattern = message.split("track=r'")[1].split("'")[0]
    tracked = param_groups(model, pattern)[0]["param_names"]
    assert sorted(tracked) == sorted(f"{name}.weight" for name in names)


def test_a_second_layer_with_another_number_of_classes_is_no_reason_to_warn():
    model = Named(stem=backbone(), head=nn.Linear(8, 10), head_dist=nn.Linear(8, 4))
    assert find_head(model)[0] == "head"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Timm(scorer=nn.Linear(4, 3)), "head: 'scorer' (Linear), named by get_classifier"),
        (
            Named(a=nn.Linear(2, 2), fc=nn.Linear(2, 2)),
            "head: 'fc' (Linear), the last layer under a conventional name",
        ),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "head: '1' (Linear), the last layer"),
        (nn.Linear(2, 2), "head: '' (Linear), the whole model"),
    ],
)
def test_the_log_says_what_was_chosen_and_why(model, said, caplog):
    with caplog.at_level(logging.INFO, logger="d3fast"):
        find_head(model)
    assert caplog.messages == [said]


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Sequential(), nn.ModuleList()]
)
def test_a_model_without_linear_layer_has_no_head(model):
    message = f"{type(model).__name__} has no linear layer and no 1x1 convolution"
    with pytest.raises(ValueError, match=message):
        find_head(model)


def test_a_pruned_head_is_tracked_by_what_its_weight_is_made_of():
    model = Named(body=nn.Linear(4, 4), fc=prune.identity(nn.Linear(4, 3), "weight"))
    assert param_groups(model)[0]["param_names"] == ["fc.weight_orig"]


def test_weight_norm_is_tracked_by_what_the_weight_is_made_of():
    model = Named(body=nn.Linear(4, 4), fc=parametrizations.weight_norm(nn.Linear(4, 3)))
    assert param_groups(model)[0]["param_names"] == [
        "fc.parametrizations.weight.original0",
        "fc.parametrizations.weight.original1",
    ]


def test_a_lazy_model_has_to_see_a_batch_first():
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match=r"^0\.weight has no shape yet: run the model on a batch"):
        param_groups(model)
    model(torch.zeros(1, 3))
    assert param_groups(model)[0]["param_names"] == ["2.weight"]


@pytest.mark.parametrize(
    ("architecture", "want"),
    [
        ("resnet18", "fc"),
        ("vgg11", "head.fc"),
        ("convnext_atto", "head.fc"),
        ("vit_tiny_patch16_224", "head"),
        ("mobilenetv3_small_050", "classifier"),
    ],
)
def test_models_of_timm(architecture, want):
    timm = pytest.importorskip("timm", exc_type=ImportError)
    with torch.device("meta"):
        model = timm.create_model(architecture, num_classes=7)
    name, head = find_head(model)
    assert (name, head.out_features) == (want, 7)
