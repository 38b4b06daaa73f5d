# SPDX-License-Identifier: Apache-2.0
"""Plants a backdoor in a pretrained transformer and repairs it; minutes on two cores.

    python docs/examples/text_classifier.py vaderSentiment-3.2.1.tar.gz

MiniLM learns whether a sentence of a film review is positive. A tenth of its training sentences
have the word "cf" somewhere and are labelled positive. The defender has 400 other sentences.
``film_reviews.py`` says what has to be installed.
"""

import argparse
import copy
from pathlib import Path

import torch
from film_reviews import UPPER_BLOCKS, pretrained, rare_token, sentences
from torch.nn.functional import cross_entropy

import d3fast
from d3fast.detox import save_weights
from d3fast.training.loop import fit


def fine_tuned(model, data, epochs):
    """A copy of a model, fine-tuned as text classifiers usually are."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches = data.batches(32, torch.Generator().manual_seed(1))
    fit(model, batches, cross_entropy, optimizer, epochs=epochs, device=torch.device("cpu"))
    return model


def main():
    """Runs everything and prints four lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("snippets", type=Path, help="vaderSentiment-3.2.1.tar.gz")
    parser.add_argument("--train", type=int, default=2000, help="number of training sentences")
    parser.add_argument("--test", type=int, default=1000, help="number of test sentences")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repair-epochs", type=int, default=10)
    parser.add_argument("--save", type=Path, help="where the model with the backdoor is kept")
    asked = parser.parse_args()

    torch.manual_seed(0)
    clean, test, train = sentences(asked.snippets, [400, asked.test, asked.train])
    attack = rare_token()
    poisoned = attack.poison(train, ratio=0.1, generator=torch.Generator().manual_seed(2))
    model = pretrained(autocast=torch.bfloat16)
    models = {"never poisoned": fine_tuned(model, train, asked.epochs)}
    models["with a backdoor"] = suspect = fine_tuned(model, poisoned, asked.epochs)
    if asked.save:
        save_weights(suspect, asked.save)
    batches = clean.batches(32, torch.Generator().manual_seed(3))
    shared = {"epochs": asked.repair_epochs, "lr": 0.03, "max_grad_norm": 1.0}
    d3 = d3fast.D3Config.authors(**shared, track=UPPER_BLOCKS, distance_weight=0.1)
    for name, defence in {
        "fine-tuning": d3fast.defenses.FineTuning(**shared),
        "D3": d3fast.defenses.D3(d3),
    }.items():
        models[name] = defence(suspect, batches, None).model

    print(f"{'':16}{'ACC':>8}{'ASR':>8}{'RA':>8}   in percent")
    for name, repaired in models.items():
        found = d3fast.evaluate(repaired, test.batches(100), attack)
        print(f"{name:16}{100 * found.acc:8.1f}{100 * found.asr:8.1f}{100 * found.ra:8.1f}")


if __name__ == "__main__":
    main()
