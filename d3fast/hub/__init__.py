# SPDX-License-Identifier: Apache-2.0
"""The suspect: any model a user was handed, as one object.

``resolve(request)`` asks the resolvers of ``RESOLVERS`` in turn. The first one that knows the form
of the model (a hub folder, a timm name, a factory with a checkpoint, …) reads it and returns a
``Suspect``: a module from inputs to scores, what its inputs look like, its class names, the files
that were read, and a writer that saves a repaired model in the format it came in.
``open_samples`` lists the user's clean samples, which are then read as the suspect takes them.
"""

from d3fast.data.columns import Columns
from d3fast.hub.classifier import Classifier
from d3fast.hub.registry import RESOLVERS, resolve
from d3fast.hub.samples import CleanSamples, Samples, open_samples
from d3fast.hub.suspect import ImageInput, Request, Suspect, TextInput, Writer

__all__ = [
    "RESOLVERS",
    "Classifier",
    "CleanSamples",
    "Columns",
    "ImageInput",
    "Request",
    "Samples",
    "Suspect",
    "TextInput",
    "Writer",
    "open_samples",
    "resolve",
]
