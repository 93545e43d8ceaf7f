"""All that knows torch: the built-in modules, and a module that is trained step by step.

Every call has one fixed shape: an answer is one row (or one moment of a series), in a tensor of its
own, because the bits of a row in a larger product depend on its place and on its neighbours'
number; a step is one group.
"""

import contextlib
import copy
import importlib
import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from streamlearn.block import F8
from streamlearn.jit.counter import key_of, normals
from streamlearn.operators import _checks

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Adam (Kingma and Ba, 2015)


class TanhNetwork(torch.nn.Module):
    """Hidden layers of tanh units, and beside them the inputs: (n, d) to (n, h + d), float64.

    A weight of the first layer is drawn by the name of its input, ~ N(0, scale^2 / d), d inputs
    being known then; of a later layer ~ N(0, 1 / its inputs). Biases are ~ N(0, scale^2), then 1.
    `grow` opens columns for new inputs, at the end, and leaves what is there as it is.
    """

    def __init__(
        self, hidden: Any = (64,), skip: bool = True, scale: float = 2.0, seed: int = 0
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        sizes = hidden if isinstance(hidden, (list, tuple)) else (hidden,)
        self.hidden = tuple(_checks.whole(owner, "hidden", size, 1) for size in sizes)
        self.skip = _checks.truth(owner, "skip", skip)
        self.scale = _checks.positive(owner, "scale", scale)
        self.seed = seed
        self.names: tuple[str, ...] = ()
        d = 0
        for layer, m in enumerate(self.hidden):
            drawn = normals(key_of(seed, f"layer {layer}"), m * d) / math.sqrt(max(d, 1))
            weight = torch.nn.Parameter(_own(drawn.reshape(m, d)))
            self.register_parameter(f"weight{layer}", weight)
            drawn = normals(key_of(seed, f"biases {layer}"), m) * (1.0 if layer else self.scale)
            self.register_parameter(f"bias{layer}", torch.nn.Parameter(_own(drawn)))
            d = m

    def grow(self, names: tuple[str, ...]) -> None:
        """Make room for these inputs, those known before being the first of them."""
        known, m = len(self.names), self.hidden[0]
        new = [normals(key_of(self.seed, f"input {name}"), m) for name in names[known:]]
        if new:
            before = self.get_parameter("weight0").detach()
            drawn = _own(self.scale / math.sqrt(len(names)) * np.array(new).T)
            wide = torch.cat((before, drawn.to(before.device)), 1)
            self.register_parameter("weight0", torch.nn.Parameter(wide))
        self.names = names

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Hidden units of the last layer, then the inputs unless `skip` is off."""
        h = x
        named = self._parameters  # a lookup by attribute costs as much as the product
        for layer in range(len(self.hidden)):
            weight, bias = named[f"weight{layer}"], named[f"bias{layer}"]
            h = torch.tanh(torch.nn.functional.linear(h, weight, bias))  # type: ignore[arg-type]
        return torch.cat((h, x), 1) if self.skip else h


class Convolutions(torch.nn.Module):
    """Dilated causal convolutions over a window, read at its last moment: (n, C L + E) to (n, q).

    A row holds C series of L moments, oldest first, then E further numbers, which join at the end.
    Layer i is h_t + gelu(sum_k W_k h_(t - k 2^i) + b), k = 0, 1, 2; the first has no h_t. Of its
    values only those are computed that reach the last moment: with every second one left out a
    layer, dilation becomes a stride of 2. L = 2^(layers + 1) - 1. Float64.

    Weights of the first layer are drawn by the names of the series, ~ N(0, 1 / (3 C)), C being
    known then; of later layers ~ N(0, 1 / (3 units)); those of the output begin at 0.
    """

    def __init__(self, units: int, layers: int, seed: int) -> None:
        super().__init__()
        self.units, self.layers, self.seed = units, layers, seed
        self.names: tuple[str, ...] = ()
        self.length = 2 ** (layers + 1) - 1
        self._open("weight0", np.zeros((units, 0, 3)))
        self._open("bias0", np.zeros(units))
        for i in range(1, layers):
            drawn = normals(key_of(seed, f"layer {i}"), units * units * 3)
            drawn /= math.sqrt(3 * units)
            self._open(f"weight{i}", drawn.reshape(units, units, 3))
            self._open(f"bias{i}", np.zeros(units))
        self._open("out", np.zeros((0, units)))
        self._open("level", np.zeros(0))

    def _open(self, name: str, array: F8) -> None:
        self.register_parameter(name, torch.nn.Parameter(_own(array)))

    def grow(self, names: tuple[str, ...], extra: int, outputs: int) -> None:
        """Make room for series of these names, those known before first; what is there stays."""
        m, known = self.units, len(self.names)
        drawn = np.zeros((m, len(names), 3))
        for j in range(known, len(names)):
            draws = normals(key_of(self.seed, f"series {names[j]}"), 3 * m)
            drawn[:, j] = draws.reshape(m, 3) / math.sqrt(3 * len(names))
        wide = {"weight0": drawn, "out": np.zeros((outputs, m + extra)), "level": np.zeros(outputs)}
        for name, array in wide.items():
            old = self.get_parameter(name).detach()
            array[tuple(slice(0, n) for n in old.shape)] = old.cpu().numpy()
            self.register_parameter(name, torch.nn.Parameter(_own(array).to(old.device)))
        self.names = names

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The outputs of each row."""
        named: dict[str, Any] = self._parameters
        functional = torch.nn.functional
        width = len(self.names) * self.length
        h = x[:, :width].reshape(x.shape[0], len(self.names), self.length)
        for i in range(self.layers):
            weight, bias = named[f"weight{i}"], named[f"bias{i}"]
            made = functional.gelu(functional.conv1d(h, weight, bias, stride=2))
            h = made if i == 0 else made + h[:, :, 2::2]
        last = torch.cat((h[:, :, 0], x[:, width:]), 1)
        return functional.linear(last, named["out"], named["level"])


class Rule(NamedTuple):
    """How the weights are stepped."""

    optimiser: str  # "adam" or "sgd"
    lr: float
    clip: float  # largest norm of a gradient
    device: str
    decay: float = 0.0  # of the weights, a step, in lr: AdamW (Loshchilov and Hutter, 2019)


class Trained:
    """A module of its own, in evaluation mode, its parameters' moments and the count of steps."""

    def __init__(self, module: torch.nn.Module, rule: Rule) -> None:
        self.rule = rule
        self.module = module.eval().to(rule.device)
        floating = [p for p in self.module.parameters() if p.is_floating_point()]
        self.dtype = floating[0].dtype if floating else torch.float64
        self.moments: dict[str, list[torch.Tensor]] = {}
        self.steps = self.skipped = 0
        self._fit_moments()
        self._row = torch.zeros((1, 0), dtype=self.dtype, device=rule.device)

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name; what does not want a gradient is left alone."""
        return {k: p for k, p in self.module.named_parameters() if p.requires_grad}

    def _fit_moments(self) -> None:
        """Moments of every parameter, in its shape; those there stay in the corner."""
        before = self.moments
        self.moments = {}
        for name, p in self.parameters.items() if self.rule.optimiser == "adam" else ():
            self.moments[name] = [torch.zeros_like(p, requires_grad=False) for _ in range(2)]
            for new, old in zip(self.moments[name], before.get(name, []), strict=False):
                new[tuple(slice(0, n) for n in old.shape)] = old

    def grow(self, names: tuple[str, ...], *sizes: int) -> None:
        """Let the module make room for inputs; its moments follow, 0 for what is new."""
        self.module.grow(names, *sizes)  # type: ignore[operator]  # the caller has looked
        self._fit_moments()

    # -- answers and steps -------------------------------------------------------------------------

    def width(self, d: int) -> int:
        """Numbers that the module makes of d inputs, by one row of zeros; no draw is allowed."""
        before = torch.get_rng_state()
        h = self.features(np.zeros(d)).shape[0]
        if not torch.equal(before, torch.get_rng_state()):
            raise ValueError("draws random numbers, which a replay would not draw again")
        return int(h)

    def features(self, x: F8) -> F8:
        """phi (h,) of one row x (d,), by a call on (1, d)."""
        if self._row.shape[1] != x.shape[0]:
            self._row = torch.zeros((1, x.shape[0]), dtype=self.dtype, device=self.rule.device)
        self._row[0].copy_(torch.from_numpy(x))
        with torch.no_grad():
            phi = self.module(self._row)
        return _numbers(phi).reshape(-1)

    def answers(self, X: F8) -> F8:
        """The module's (n, q) of rows that always come together, by one call."""
        with torch.no_grad():
            return _numbers(self.module(_own(X).to(self.rule.device, self.dtype)))

    def step(self, X: F8, slopes: Callable[[F8], F8]) -> None:
        """Climb: X (B, d) in one call, slopes(phi (B, h)) the gradient of each row's objective."""
        inputs = _own(X).to(self.rule.device, self.dtype)
        phi = self.module(inputs).reshape(X.shape[0], -1)
        if not phi.requires_grad:
            return
        pull = _own(slopes(_numbers(phi.detach())) / X.shape[0])
        found = self.parameters
        gradients = torch.autograd.grad(
            phi, list(found.values()), pull.to(phi.device, phi.dtype), allow_unused=True
        )
        given = zip(found.items(), gradients, strict=True)
        self._climb([(name, p, g) for (name, p), g in given if g is not None])

    def _climb(self, found: list[tuple[str, torch.nn.Parameter, torch.Tensor]]) -> None:
        """One step along the gradient, cut to the largest norm; none if it is not finite."""
        norm = math.sqrt(sum(float(g.double().square().sum()) for *_, g in found))
        if not norm < math.inf:
            self.skipped += 1
            return
        self.steps += 1
        scale = min(1.0, self.rule.clip / norm) if norm > 0.0 else 1.0
        with torch.no_grad():
            for name, p, g in found:
                if self.rule.decay > 0.0:
                    p.mul_(1.0 - self.rule.lr * self.rule.decay)
                if self.rule.optimiser == "sgd":
                    p.add_(g, alpha=self.rule.lr * scale)
                else:
                    self._adam(name, p, g * scale)

    def _adam(self, name: str, p: torch.nn.Parameter, g: torch.Tensor) -> None:
        first, second = self.moments[name]
        first.mul_(_BETA1).add_(g, alpha=1.0 - _BETA1)
        second.mul_(_BETA2).addcmul_(g, g, value=1.0 - _BETA2)
        size = self.rule.lr / (1.0 - _BETA1**self.steps)
        spread = (second / (1.0 - _BETA2**self.steps)).sqrt_().add_(_EPSILON)
        p.addcdiv_(first, spread, value=size)

    # -- state -------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that is state: parameters and buffers by name, moments."""
        found = {f"module/{name}": t for name, t in self.module.state_dict().items()}
        for name, pair in self.moments.items():
            found |= {f"first/{name}": pair[0], f"second/{name}": pair[1]}
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all that is state, as numpy arrays."""
        return {name: _plain(t.detach()).cpu().numpy().copy() for name, t in self.tensors().items()}

    def load(self, owner: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `arrays` gave, into a module of the same build."""
        found = self.tensors()
        given = {name: array.shape for name, array in arrays.items()}
        wanted = {name: tuple(t.shape) for name, t in found.items()}
        if given != wanted:
            wrong = sorted(k for k in given.keys() | wanted if given.get(k) != wanted.get(k))
            raise ValueError(
                f"{owner}: module must be the one that was saved, these parts differ: {wrong}"
            )
        with torch.no_grad():
            for name, t in found.items():
                _plain(t.detach()).copy_(torch.from_numpy(np.array(arrays[name])))


def _own(array: F8) -> torch.Tensor:
    """A tensor in memory of its own, aligned as torch aligns: bits of some products hang on it."""
    return torch.from_numpy(array).clone()


def _plain(t: torch.Tensor) -> torch.Tensor:
    """The tensor, or the bits of one whose numbers numpy does not have; a view."""
    return t.view(torch.int16) if t.dtype == torch.bfloat16 else t


def _numbers(phi: torch.Tensor) -> F8:
    """As float64 on the CPU, a copy."""
    out: F8 = phi.to("cpu", torch.float64).numpy().copy()
    return out


# -- making a module -------------------------------------------------------------------------------


def check_device(owner: str, device: str) -> None:
    """A device that is not there is an error; a GPU is told to be deterministic."""
    if device != "cuda":
        return
    if not torch.cuda.is_available():
        raise ValueError(f"{owner}: device must be there, got 'cuda', and torch finds no GPU")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself with it


def factory_of(owner: str, path: str) -> Callable[..., Any]:
    """What stands at `package.module:name`."""
    place, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(place), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{owner}: module must be importable, as package.module:factory, got {path!r}: {error}"
        ) from None
    if not callable(found):
        raise ValueError(f"{owner}: module must name a function or a class, got {path!r}")
    made: Callable[..., Any] = found
    return made


def build(owner: str, module: Any, arguments: Mapping[str, Any], d: int, seed: int) -> Any:
    """A module to be trained: a copy of the one given, or what its factory makes for d inputs.

    A factory that takes `n_inputs` is told d. Its random weights come from the seed.
    """
    if module is None:
        return TanhNetwork(**arguments, seed=seed)
    if not isinstance(module, str):
        return copy.deepcopy(module)
    factory = factory_of(owner, module)
    told = {"n_inputs": d} if "n_inputs" in inspect.signature(factory).parameters else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(seed, "module"))
        made = factory(**told, **arguments)
    if not isinstance(made, torch.nn.Module):
        raise ValueError(f"{owner}: module must make a torch.nn.Module, {module!r} makes {made!r}")
    return made


@contextlib.contextmanager
def repeatable(device: str) -> Iterator[None]:
    """One thread, and on a GPU deterministic algorithms; what was set before is set again."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    if device == "cuda":
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if device == "cuda":
            torch.use_deterministic_algorithms(strict)
