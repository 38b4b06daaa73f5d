# SPDX-License-Identifier: Apache-2.0
"""Objects of other libraries in a pickle: which stand still, and which show an attack.

Checkpoints hold settings and state beside the weights: a ``Namespace``, paths, numpy scalars,
OmegaConf, dates. d3fast reads past them: it makes no object, and imports, looks up and calls
nothing, whatever the name. The rules here decide only whether the *file* is refused. A pickle that
calls functions, or classes that start programs, attacks whoever opens it with ``torch.load``; an
object of any other class does not concern the weights.
"""

from collections.abc import Mapping

from d3fast.io.pickles import AsksForCode, Inert

# Functions and classes with small initials that settings and training state consist of.
_CALLS = frozenset(
    {
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.frozenset",
        "builtins.object",
        "builtins.range",
        "builtins.set",
        "builtins.slice",
        "collections.defaultdict",
        "collections.deque",
        "copyreg._reconstructor",
        "datetime.date",
        "datetime.datetime",
        "datetime.time",
        "datetime.timedelta",
        "datetime.timezone",
        "functools.partial",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.numeric._frombuffer",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.core.numeric._frombuffer",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.random._pickle.__bit_generator_ctor",
        "numpy.random._pickle.__generator_ctor",
        "numpy.random._pickle.__randomstate_ctor",
        "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
        "re._compile",
        "torch._utils._rebuild_device_tensor_from_numpy",
        "torch.device",
        "torch.layout",
    }
)
# Calls that are harmless beside weights, and the name of their result in errors.
OTHERS: Mapping[str, str] = {
    "torch._utils _rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils _rebuild_qtensor": "a quantised tensor",
    "torch._utils _rebuild_meta_tensor_no_storage": "a tensor without values",
    "torch._utils _rebuild_nested_tensor": "a nested tensor",
    "torch._utils _rebuild_wrapper_subclass": "a tensor of another class",
    "torch._utils _rebuild_device_tensor_from_numpy": "a tensor of another device",
    "torch._utils _rebuild_device_tensor_from_cpu_tensor": "a tensor of another device",
    "torch.serialization _get_layout": "a layout",
    "torch device": "a device",
    "_codecs encode": "bytes",
    **{
        f"{module} {name}": f"a {name}"
        for module in ("builtins", "__builtin__")
        for name in ("bytearray", "set", "complex")
    },
}
# Python 2 and protocol 2 write old names of modules.
_OLD = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# Packages whose classes run programs, text or other pickles.
# fmt: off
_RUN = frozenset({
    "_io", "_pickle", "asyncio", "bdb", "builtins", "cProfile", "cffi", "cloudpickle", "code",
    "codeop", "commands", "ctypes", "dill", "distutils", "doctest", "ftplib", "http",
    "importlib", "io", "joblib", "jsonpickle", "logging", "marshal", "multiprocessing", "nt",
    "numba", "os", "pdb", "pickle", "pip", "pkgutil", "platform", "posix", "profile", "pty",
    "pydoc", "requests", "runpy", "setuptools", "shelve", "shutil", "smtplib", "socket",
    "sqlite3", "ssl", "subprocess", "sys", "tempfile", "threading", "timeit", "trace", "urllib",
    "venv", "webbrowser", "xmlrpc", "zipimport",
})
# fmt: on


def inert(name: str, *, made: bool) -> Inert:
    """Return an object that stands for one of a class that the pickle names.

    Args:
        name: ``"module Class"``.
        made: the pickle makes a new object of a class, as against calling it.

    Raises:
        AsksForCode: a function that is not known to be harmless, or a class of a package that runs
            programs.

    Example:
        >>> inert("argparse Namespace", made=True)
        Inert(name='argparse.Namespace')
        >>> inert("os system", made=False)
        Traceback (most recent call last):
        d3fast.io.pickles.AsksForCode: os.system
    """
    module, _, attribute = name.partition(" ")
    module = _OLD.get(module, module)
    dotted = f"{module}.{attribute}"
    if dotted not in _CALLS:
        is_class = made or attribute.rpartition(".")[2].lstrip("_")[:1].isupper()
        if not is_class or module.partition(".")[0] in _RUN or "." in attribute:
            raise AsksForCode(dotted)
    return Inert(dotted)
