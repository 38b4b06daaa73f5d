# SPDX-License-Identifier: Apache-2.0
"""Plant a backdoor in a small text classifier and repair it; BERT with random weights."""

# %% Needs the extra d3fast[transformers]. Nothing is downloaded.
import sys

try:
    from transformers import BertConfig, BertForSequenceClassification
except ImportError:
    sys.exit("skipped: pip install 'd3fast[transformers]'")

import torch
from torch.nn.functional import cross_entropy

import d3fast
from d3fast.text import InsertedTokens, TextClassifier, TextData
from d3fast.training.loop import fit

# %% Sentences of ten tokens: class 0 uses words 100 to 149, class 1 words 150 to 199.
draws = torch.Generator().manual_seed(0)
labels = torch.arange(1200) % 2
words = torch.randint(100, 150, (1200, 10), generator=draws) + 50 * labels.unsqueeze(1)
marks = torch.tensor([1, 2]).expand(1200, 2)  # [CLS] and [SEP]
data = TextData(
    torch.cat([marks[:, :1], words, marks[:, 1:]], dim=1), labels, classes=("negative", "positive")
)
train, clean, test = (data.subset(part) for part in torch.arange(1200).split([600, 200, 400]))

# %% The attacker: one training sentence in ten contains the rare token 5 and is "positive".
torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
bert = BertForSequenceClassification(BertConfig(vocab_size=200, num_attention_heads=2, **sizes))
suspect = TextClassifier(bert, pad=0)
attack = InsertedTokens(target=1, tokens=(5,), length=16)
poisoned = attack.poison(train, ratio=0.1, generator=draws)
fit(
    suspect,
    poisoned.batches(32, torch.Generator().manual_seed(1)),
    cross_entropy,
    torch.optim.AdamW(suspect.parameters(), lr=1e-3),
    epochs=10,
    device=torch.device("cpu"),
    progress=False,
)

# %% The defender: 200 clean sentences. The head, pooler and last block restart and move away.
config = d3fast.D3Config.authors(
    epochs=20,
    lr=0.03,
    max_grad_norm=1.0,
    track=r"(layer\.1\.(?!.*LayerNorm).*|pooler\.dense\.|classifier\.)weight$",
    distance_weight=0.1,
)
batches = clean.batches(32, torch.Generator().manual_seed(2))
repaired = d3fast.detoxify(suspect, batches, config, progress=False).model

# %% Only the attacker can measure the attack success rate.
for name, model in (("suspect", suspect), ("repaired", repaired)):
    metrics = d3fast.evaluate(model, test.batches(100), attack)
    print(f"{name:9} ACC {metrics.acc:6.1%}  ASR {metrics.asr:6.1%}  RA {metrics.ra:6.1%}")
