"""Fine-mixing: what returns to the base, what stays, and a backdoor that goes with it."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from d3fast import evaluate
from d3fast.defenses import FineMixing, FineTuning
from d3fast.defenses.fine_mixing import body_weights, mix_weights, purify_embedding, token_counts
from d3fast.testing.toys import batches, conv_model


class Words(nn.Module):
    """Mean of embeddings, and a head."""

    def __init__(self, tokens=40):
        super().__init__()
        self.embed, self.head = nn.Embedding(tokens, 4), nn.Linear(4, 2)

    def forward(self, ids):
        return self.head(self.embed(ids).mean(1))


@pytest.fixture
def write(tmp_path):
    def made(model, **changes):
        file = tmp_path / "base.safetensors"
        state = {**model.state_dict(), **changes}
        save_file({name: t for name, t in state.items() if t is not None}, file)
        return str(file)

    return made


def test_a_share_of_the_entries_is_kept_and_the_others_are_the_bases():
    own, public = {"a": torch.ones(100, 100)}, {"a": torch.full((100, 100), 2.0)}
    mix_weights(own, public, 0.3, torch.Generator().manual_seed(0))
    kept = own["a"] == 1
    assert abs(float(kept.float().mean()) - 0.3) < 0.02
    assert bool((own["a"][~kept] == 2).all())


def test_the_head_and_frozen_weights_are_not_mixed():
    model = conv_model()
    model[3].requires_grad_(False)
    assert set(body_weights(model)) == {
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "4.weight",
        "4.bias",
    }


def test_a_model_that_is_all_head_is_refused(write):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ValueError, match="Sequential has no trainable one there"):
        FineMixing(write(linear))(linear, batches(), None, progress=False)


def test_words_are_ranked_by_their_way_for_their_frequency():
    own, public = torch.tensor([[4.0], [4.0], [1.0], [0.0]]), torch.zeros(4, 1)
    counts = torch.tensor([10_000, 3, 0, 0])
    purify_embedding(own, public, counts, 1)
    assert own.flatten().tolist() == [4, 0, 1, 0]
    purify_embedding(own, public, counts, 1)  # 4 / log 10000 = 0.43, 1 / log 20 = 0.33
    assert own.flatten().tolist() == [0, 0, 1, 0]


def test_tokens_are_counted_over_the_clean_samples():
    texts = [
        (torch.tensor([[1, 1, 0]]), torch.tensor([0])),
        (torch.tensor([[3]]), torch.tensor([1])),
    ]
    assert token_counts(texts, 5).tolist() == [1, 2, 0, 1, 0]
    assert token_counts(batches(), 5).tolist() == [0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="clean_loader holds token 3, the model has 3"):
        token_counts(texts, 3)


def test_the_embedding_of_a_trigger_word_returns_although_most_weights_are_kept(write):
    base, suspect = Words(), Words()
    suspect.load_state_dict(base.state_dict())
    with torch.no_grad():
        suspect.embed.weight[7] += 5.0
        suspect.embed.weight[:5] += 0.1
    ids = torch.arange(20).remainder(5).reshape(10, 2)
    loader = [(ids, torch.arange(10) % 2)]
    options = {"reserve": 1.0, "epochs": 1, "lr": 0.0, "weight_decay": 0.0}
    for purified, returned in ((1, True), (0, False)):
        defense = FineMixing(write(base), purified=purified, **options)
        repaired = defense(suspect, loader, None, progress=False).model
        assert torch.equal(repaired.embed.weight[7], base.embed.weight[7]) == returned
        assert torch.equal(repaired.embed.weight[:5], suspect.embed.weight[:5])


def test_a_planted_trigger_that_outlives_fine_tuning_goes_with_the_weights(
    fine_tuned, planted, trigger, write
):
    (base, suspect), (_, clean, test) = fine_tuned, planted
    defense = FineMixing(write(base, **{"3.weight": None, "3.bias": None}), epochs=20)
    before, tuned, after = (
        evaluate(model, test, trigger, target=0)
        for model in (
            suspect,
            FineTuning(epochs=20)(suspect, clean, None, progress=False).model,
            defense(suspect, clean, None, progress=False).model,
        )
    )
    assert before.asr > 0.95
    assert tuned.asr > 0.95
    assert after.asr < 0.05
    assert after.acc > before.acc - 0.02


def test_a_clean_model_keeps_its_accuracy(fine_tuned, planted, write):
    (base, _), (_, clean, test) = fine_tuned, planted
    other = FineTuning(epochs=5)(base, clean, None, progress=False).model
    repaired = FineMixing(write(base), epochs=20)(other, clean, None, progress=False).model
    assert evaluate(repaired, test, None).acc > evaluate(other, test, None).acc - 0.02


def test_without_a_base_nothing_is_repaired_and_the_reason_is_said():
    with pytest.raises(ValueError, match=r"FineMixing mixes with the public model .* base is None"):
        FineMixing()(conv_model(), batches(), None, progress=False)


def test_a_base_that_lacks_a_weight_is_refused_with_its_name(write):
    file = write(conv_model(), **{"3.weight": None})
    with pytest.raises(ValueError, match=r"base\.safetensors has no weight '3\.weight'"):
        FineMixing(file, epochs=1)(conv_model(), batches(), None, progress=False)


def test_its_defaults():
    defense = FineMixing()
    assert (defense.base, defense.reserve, defense.purified) == (None, 0.1, 200)
