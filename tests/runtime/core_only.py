"""A program that finds torch, numpy and what they require alone: it trains, repairs, imports all.

Prints JSON: the distance after a step, the distance, epochs and accuracy of a repair, and by module
the message of every import that failed.
"""

import importlib
import json
import pkgutil
import re
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def with_requirements(*names):
    """Return the names of distributions and of all that they require."""
    found, left = set(), list(names)
    while left:
        name = canonical(left.pop())
        if name not in found:
            found.add(name)
            try:
                lines = requires(name) or []
            except PackageNotFoundError:
                continue
            left += [re.match(r"[\w.-]+", line)[0] for line in lines if "extra ==" not in line]
    return found


def hide_other_packages():
    """Let every import outside the distributions of the core fail."""
    core = with_requirements("torch", "numpy") | {"d3fast"}
    for module, owners in packages_distributions().items():
        if core.isdisjoint(map(canonical, owners)):
            sys.modules.setdefault(module, None)


def train_and_repair():
    import torch

    import d3fast

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = d3fast.D3FusedSGD(d3fast.param_groups(model, track="head"), lr=0.1, momentum=0.9)
    optimizer.warm_start("random")
    inputs = torch.randn(32, 8)
    labels = (inputs[:, 0] > 0).long()
    d3fast.CleanLoss()(model(inputs), labels).backward()
    optimizer.step()
    result = d3fast.detoxify(model, [(inputs, labels)], d3fast.D3Config(epochs=3))
    return {
        "distance": float(optimizer.total_distance()),
        "repaired": result.history[-1].distance,
        "epochs": len(result.history),
        "acc": d3fast.evaluate(result.model, [(inputs, labels)], None).acc,
    }


def failed_imports():
    import d3fast

    failed = {}
    for module in pkgutil.walk_packages(d3fast.__path__, "d3fast."):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            failed[module.name] = str(error)
    return failed


if __name__ == "__main__":
    hide_other_packages()
    print(json.dumps({**train_and_repair(), "failed": failed_imports()}))
