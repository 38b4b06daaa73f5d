# SPDX-License-Identifier: Apache-2.0
"""What a defender has: clean samples, some of them held out, and images without labels."""

import torch

from d3fast.data import Augment, ImageData, stratified_split
from d3fast.detox.samples import Unlabelled
from d3fast.runtime.seeding import generator


def defender_samples(
    clean: ImageData, count: int, held_out: float, seed: int
) -> tuple[ImageData, ImageData | None, ImageData]:
    """Return a defender's training samples, its held-out samples, and the samples of nobody.

    Args:
        clean: images kept aside for a defender.
        count: number of images that the defender gets.
        held_out: share of those that it holds out; without any, the second value is ``None``.
        seed: draws both, stratified by class. A defender that gets all images and holds none out
            gets them in their own order.

    Raises:
        ValueError: more samples than there are.
    """
    if count > len(clean):
        raise ValueError(f"clean must be <= the {len(clean)} images kept aside, got {count}")
    if count == len(clean) and held_out == 0:
        return clean, None, clean.subset(torch.arange(0))
    draws = generator(seed, "defender's samples")
    own, others = stratified_split(clean.labels, [count, len(clean) - count], draws)
    kept = round(held_out * count)
    draws = generator(seed, "held-out samples")
    val, train = stratified_split(clean.labels[own], [kept, count - kept], draws)
    samples = clean.subset(own)
    return samples.subset(train), samples.subset(val) if kept else None, clean.subset(others)


def without_labels(
    others: ImageData, count: int, batch_size: int, augment: Augment | None, seed: int
) -> Unlabelled:
    """Return endless batches of images, whose labels nobody reads.

    Args:
        others: the samples of nobody, of ``defender_samples``.
        count: number of different images.
        batch_size: images per batch.
        augment: augmentation of every batch, or ``None``.
        seed: draws the images, their order and the augmentation.

    Raises:
        ValueError: more images than there are.
    """
    if count > len(others):
        raise ValueError(f"unlabelled must be <= the {len(others)} images left, got {count}")
    draw = generator(seed, "images without labels")
    chosen = torch.randperm(len(others), generator=draw)[:count]
    return Unlabelled(others.subset(chosen), batch_size, augment, draw)
