# SPDX-License-Identifier: Apache-2.0
"""Repairs a transformer in bf16, sharded over several ranks by FSDP2.

    python docs/examples/text_classifier.py vaderSentiment-3.2.1.tar.gz --save suspect.safetensors
    torchrun --nproc-per-node 2 docs/examples/sharded_transformer.py \
        suspect.safetensors vaderSentiment-3.2.1.tar.gz --out repaired.safetensors

The weights are bf16, the arithmetic of a step is fp32, and what storing the tracked weights takes
off is kept (docs/precision.md). Every rank reads its own share of the clean sentences.
"""

import argparse
from pathlib import Path

import torch
from film_reviews import UPPER_BLOCKS, pretrained, rare_token, sentences
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import clip_grad_norm_

import d3fast
from d3fast.detox import save_weights
from d3fast.models import load_weights


def own_share(data):
    """Every world-size-th sentence."""
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    return data.subset(torch.arange(rank, len(data), ranks))


def main():
    """Loads, shards, repairs, gathers; rank 0 measures both models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suspect", type=Path)
    parser.add_argument("snippets", type=Path, help="vaderSentiment-3.2.1.tar.gz")
    parser.add_argument("--out", type=Path, default=Path("repaired.safetensors"))
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--test", type=int, default=1000, help="number of test sentences")
    asked = parser.parse_args()

    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", distributed.get_node_local_rank())
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    clean, test = sentences(asked.snippets, [400, asked.test])
    model = pretrained()
    load_weights(model, asked.suspect)
    model.to(device, torch.bfloat16).train()
    for layer in model.model.bert.encoder.layer:
        fully_shard(layer)
    fully_shard(model)

    groups = d3fast.param_groups(model, track=UPPER_BLOCKS)
    groups[0]["distance_weight"] = 0.1
    optimizer = d3fast.D3FusedSGD(groups, lr=0.03, momentum=0.9, backend="reference")
    optimizer.warm_start("random", generator=torch.Generator().manual_seed(0))  # alike on all
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, asked.epochs)
    loss = d3fast.CleanLoss(epsilon=0.1, weight=0.5)
    batches = own_share(clean).batches(16, torch.Generator().manual_seed(0))
    for _ in range(asked.epochs):
        for ids, labels in batches:
            optimizer.zero_grad()
            loss(model(ids.to(device)).float(), labels.to(device)).backward()
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
    distance = float(optimizer.total_distance())  # a collective: every rank asks

    whole = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    if distributed.get_rank() == 0:
        repaired = pretrained().to(torch.bfloat16)
        repaired.load_state_dict(whole)
        save_weights(repaired, asked.out)
        before = pretrained()
        load_weights(before, asked.suspect)
        before.to(torch.bfloat16)
        print(f"distance of the tracked weights: {distance:.3f}")
        for name, one in (("suspect", before), ("repaired", repaired)):
            found = d3fast.evaluate(one, test.batches(100), rare_token())
            print(f"{name:10}ACC {100 * found.acc:5.1f}  ASR {100 * found.asr:5.1f}")
    # The ranks leave together: a rank that ends with a collective's thread still at work aborts.
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
