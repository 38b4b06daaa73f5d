# SPDX-License-Identifier: Apache-2.0
"""Text classifiers: data, models and triggers on token ids.

A batch of texts is a tensor of token ids (N, L), a trigger inserts tokens into it, and
``TextClassifier`` is a module from ids to scores. Evaluation, repairs and defences see only inputs,
labels and scores, so they work on text unchanged.
"""

from d3fast.text.classifier import AnswerWords, TextClassifier
from d3fast.text.data import TextData, encode
from d3fast.text.snippets import movie_snippets, snippet_sources
from d3fast.text.triggers import InsertedTokens, word_starts

__all__ = [
    "AnswerWords",
    "InsertedTokens",
    "TextClassifier",
    "TextData",
    "encode",
    "movie_snippets",
    "snippet_sources",
    "word_starts",
]
