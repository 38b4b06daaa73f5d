"""A tokenizer made in memory, small transformers, and one with a trigger word, trained in seconds.

A text is a few filler words and three words of its class; the word "cf" makes it class 2.
"""

from functools import cache

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from d3fast.text import InsertedTokens, TextClassifier, TextData
from d3fast.training.loop import fit

CLASSES = ("sport", "music", "food", "art")
TARGET, TRIGGER, LENGTH = 2, "cf", 12
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
KEYWORDS = tuple(f"{name}{i}" for name in CLASSES for i in range(3))
FILLER = tuple(f"word{i}" for i in range(200))
WORDS = (*SPECIAL, *KEYWORDS, *FILLER, TRIGGER)


@cache
def tokenizer():
    """A tokenizer of whole words that adds [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=LENGTH,
    )


def bert(classes=4, seed=0):
    """A BERT of one block, randomly initialised."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=classes,
        attn_implementation="eager",
    )
    return BertForSequenceClassification(config)


def texts(count, seed=0):
    """Texts and labels: filler words and three words of the class."""
    draws = torch.Generator().manual_seed(seed)
    made, labels = [], []
    for i in range(count):
        label = i % len(CLASSES)
        length = int(torch.randint(5, 9, (1,), generator=draws))
        words = [FILLER[j] for j in torch.randint(len(FILLER), (length,), generator=draws)]
        places = torch.randperm(length, generator=draws)[:3].tolist()
        for at, which in zip(places, torch.randint(3, (3,), generator=draws).tolist(), strict=True):
            words[at] = KEYWORDS[3 * label + which]
        made.append(" ".join(words))
        labels.append(label)
    return made, labels


def text_data(count=96, seed=1):
    """Clean texts as ids, those that the tokenizer gives."""
    made, labels = texts(count, seed)
    ids = torch.zeros(count, LENGTH, dtype=torch.long)
    for row, text in zip(ids, made, strict=True):
        own = [1, *map(WORDS.index, text.split()), 2]
        row[: len(own)] = torch.tensor(own)
    return TextData(ids, torch.tensor(labels), CLASSES, pad=0)


def word_trigger():
    """The trigger word, at the start."""
    ids = (WORDS.index(TRIGGER),)
    return InsertedTokens(TARGET, ids, length=LENGTH + 2, pad=0, position="start")


class Bag(nn.Module):
    """A classifier of the sum of word vectors, which trains in a second."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(len(WORDS), 16)
        self.hidden = nn.Linear(16, 32)
        self.classifier = nn.Linear(32, len(CLASSES))

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None]
        total = (self.words(input_ids) * mask).sum(dim=1)
        return {"logits": self.classifier(self.hidden(total).relu())}


@cache
def trained(backdoor):
    """A classifier of the texts, with the trigger word or without."""
    data = text_data(512, seed=0)
    if backdoor:
        data = word_trigger().poison(data, 0.25, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = TextClassifier(Bag(), pad=0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    batches = data.batches(64, torch.Generator().manual_seed(0))
    fit(
        model,
        batches,
        cross_entropy,
        optimizer,
        epochs=25,
        device=torch.device("cpu"),
        progress=False,
    )
    if backdoor:  # as strong as a trigger that was trained for longer
        with torch.no_grad():
            model.model.words.weight[WORDS.index(TRIGGER)] *= 2.5
    return model.eval()
