"""SciPy: every optimizer as a `method` of `scipy.optimize.minimize`, and of all that is built on it.

    from fastgd.adapters import scipy as fastgd_scipy
    result = scipy.optimize.minimize(fun, x0, jac=True, method=fastgd_scipy.adam, options={"lr": 0.01})

For functions that are noisy, or of very many variables. Where a function is smooth and has few, SciPy's
own L-BFGS-B needs far fewer evaluations.

Needs `pip install "fastgd[scipy]"`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgd._arguments import integer, number, suggestion
from fastgd.optimizers import OTHER_NAMES, Optimizer, all_optimizers, find

try:
    from scipy.optimize import OptimizeResult  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError('fastgd.adapters.scipy needs SciPy: pip install "fastgd[scipy]"') from error

Vector = NDArray[np.float64]

CONVERGED, OUT_OF_STEPS, NOT_FINITE, STOPPED = 0, 1, 2, 99
MESSAGES = {
    CONVERGED: "Optimization terminated successfully: the gradient is at most tol.",
    OUT_OF_STEPS: "Maximum number of iterations has been exceeded.",
    NOT_FINITE: "The function or its gradient is not finite; try a smaller lr.",
    STOPPED: "`callback` raised `StopIteration`.",
}
ENOUGH = "All iterations were taken; no tol was given."


class Method:
    """What `method` returns: a minimizer with the signature that SciPy's `method=` calls.

    Called by itself it is `adam(fun, x0, args=(), jac=True, lr=0.01)`. The point that it returns is the
    one with the lowest value of all that were evaluated.

    Args:
        fun: function (x, *args) -> value, or with jac=True -> (value, gradient).
        x0: (n,) where to begin; not changed.
        args: further arguments of fun and jac.
        jac: True, or a function (x, *args) -> gradient.
        bounds: `scipy.optimize.Bounds` or a pair (low, high) for each variable, None for no bound; every
            step is projected on them.
        callback: called after each step as SciPy's methods do: callback(x), with a copy, or
            callback(intermediate_result=…); StopIteration ends the run.
        tol: stop when no element of the (projected) gradient is larger; None to take all steps.
        maxiter: steps.
        disp: print how it ended.
        hyperparameters: of the optimizer: lr, betas, clip_norm, schedules of the step and so on.

    Returns:
        `scipy.optimize.OptimizeResult` with x, fun, jac, nit, nfev, njev, status, success, message.
        Status 0: tol was reached, or all steps were taken and there was no tol; 1: tol was not reached;
        2: the function or its gradient was not finite; 99: the callback ended it.

    Raises:
        TypeError, ValueError: an argument is not as described; names it, and the fix.

    Example:
        >>> import scipy.optimize
        >>> from fastgd.adapters.scipy import adam
        >>> result = scipy.optimize.minimize(
        ...     scipy.optimize.rosen, [0.5, 0.5], jac=scipy.optimize.rosen_der, method=adam, tol=1e-6,
        ...     options={"lr": 0.02, "maxiter": 20_000})
        >>> result.success, result.x.round(4).tolist()
        (True, [1.0, 1.0])
    """

    def __init__(self, kind: type[Optimizer], hyperparameters: dict[str, Any]) -> None:
        self._kind, self._given = kind, hyperparameters
        self._check(hyperparameters)
        self.__name__ = self.__qualname__ = kind.__name__.lower()

    def __repr__(self) -> str:
        given = "".join(f", {key}={value!r}" for key, value in self._given.items())
        return f"method({self.__name__!r}{given})"

    def __reduce__(self) -> Any:
        return method, (self._kind.__name__,), {"_given": self._given}

    def __call__(
        self,
        fun: Callable[..., Any],
        x0: Any,
        args: tuple[Any, ...] = (),
        jac: Any = None,
        *,
        bounds: Any = None,
        callback: Callable[..., Any] | None = None,
        tol: float | None = None,
        maxiter: int = 1000,
        disp: bool | int = False,
        constraints: Any = (),
        hess: Any = None,
        hessp: Any = None,
        **hyperparameters: Any,
    ) -> Any:
        """See the class."""
        self._check(hyperparameters)
        if constraints is not None and np.size(constraints):
            raise ValueError(
                f"{self.__name__} knows bounds but no other constraints; use SciPy's SLSQP or "
                "trust-constr, or add a penalty to fun"
            )
        evaluate = _objective(self.__name__, fun, jac, args if isinstance(args, tuple) else (args,))
        x = np.array(x0, np.float64).reshape(-1)
        if not x.size or not np.isfinite(x).all():
            raise ValueError(f"x0 must be finite numbers, at least one, got {x0!r}")
        low, high = _limits(bounds, x.size)
        limit = None if tol is None else number("tol", tol)
        made: Any = self._kind
        optimizer = made(x, **{**self._given, **hyperparameters})
        run = _Run(evaluate, optimizer, x, low, high, limit, _caller(callback))
        result = run.result(integer("maxiter", maxiter, 1))
        if disp:  # True or a level, as with SciPy's own methods
            print(result.message)
        return result

    def _check(self, hyperparameters: dict[str, Any]) -> None:
        known = [key for key in inspect.signature(self._kind).parameters if key != "params"]
        own = [key for key in inspect.signature(type(self).__call__).parameters if key != "self"]
        for key in hyperparameters:
            if key not in known:
                others = OTHER_NAMES | {"gtol": "tol", "ftol": "tol", "max_iter": "maxiter"}
                raise TypeError(
                    f"{self._kind.__name__.lower()} has no option {key!r}"
                    f"{suggestion(key, [*known, *own], others) or '; it has ' + ', '.join(known)}"
                )


def method(optimizer: str | type[Optimizer] = "adam", **hyperparameters: Any) -> Method:
    """A `method=` for `scipy.optimize.minimize`, with hyperparameters of its own.

    Args:
        optimizer: a class or its name in any case, as `fastgd.optimizers.find` takes it.
        hyperparameters: in place of the defaults; `options=` of scipy.optimize.minimize comes first.

    Raises:
        TypeError, ValueError: there is no such optimizer or hyperparameter.

    Example:
        >>> from fastgd.adapters.scipy import method
        >>> method("rmsprop", lr=0.01)
        method('rmsprop', lr=0.01)
    """
    kind = find(optimizer)
    return Method(kind, hyperparameters)


def gpr_optimizer(
    optimizer: str | type[Optimizer] = "adam", *, maxiter: int = 200, **hyperparameters: Any
) -> Callable[[Callable[..., Any], Vector, Any], tuple[Vector, float]]:
    """An `optimizer=` for scikit-learn's `GaussianProcessRegressor` and `GaussianProcessClassifier`.

    Example:
        >>> from fastgd.adapters.scipy import gpr_optimizer
        >>> fit = gpr_optimizer("adam", lr=0.1)
        >>> theta, value = fit(lambda t, eval_gradient=True: (float(t @ t), 2 * t), [1.0], [(-5, 5)])
        >>> bool(abs(theta[0]) < 1e-2)
        True
    """
    minimizer = method(optimizer, **hyperparameters)
    steps = integer("maxiter", maxiter, 1)

    def fit(fun: Callable[..., Any], theta: Vector, bounds: Any) -> tuple[Vector, float]:
        def evaluate(x: Vector) -> Any:
            value, gradient = fun(x, eval_gradient=True)
            return value, gradient

        result = minimizer(evaluate, theta, jac=True, bounds=bounds, maxiter=steps)
        return result.x, float(result.fun)

    return fit


class _Run:
    """One minimization."""

    def __init__(
        self,
        evaluate: Callable[[Vector], tuple[float, Vector]],
        optimizer: Optimizer,
        x: Vector,
        low: Vector | None,
        high: Vector | None,
        tol: float | None,
        callback: Callable[[Any], None] | None,
    ) -> None:
        self._evaluate, self._optimizer, self._x = evaluate, optimizer, x
        self._low, self._high, self._tol, self._callback = low, high, tol, callback
        self._evaluations = 0
        self._best = x.copy(), math.nan, np.full_like(x, math.nan)

    def result(self, maxiter: int) -> Any:
        status, message = self._descend(maxiter), ""
        if status == OUT_OF_STEPS and self._tol is None:
            status, message = CONVERGED, ENOUGH
        x, value, gradient = self._best
        return OptimizeResult(
            x=x,
            fun=value,
            jac=gradient,
            nit=self._optimizer.step_count,
            nfev=self._evaluations,
            njev=self._evaluations,
            status=status,
            success=status == CONVERGED,
            message=message or MESSAGES[status],
        )

    def _descend(self, maxiter: int) -> int:
        """Until one of the ends, whose status is returned."""
        optimizer, x = self._optimizer, self._x
        self._project()
        value, gradient = self._look()
        for step in range(maxiter + 1):
            if not (math.isfinite(value) and np.isfinite(gradient).all()):
                return NOT_FINITE
            if self._tol is not None and self._projected(gradient) <= self._tol:
                self._best = x.copy(), value, gradient
                return CONVERGED
            if step == maxiter:
                break
            optimizer.step(gradient, loss=value)
            self._project()
            if step == maxiter - 1:  # what is returned is the average, if there is one
                optimizer.eval()
                self._project()
            value, gradient = self._look()
            if self._callback is not None:
                try:
                    self._callback(OptimizeResult(x=x.copy(), fun=value))
                except StopIteration:
                    return STOPPED
        return OUT_OF_STEPS

    def _look(self) -> tuple[float, Vector]:
        """The value and the gradient here, noted if they are the best so far."""
        value, gradient = self._evaluate(self._x)
        self._evaluations += 1
        if not value >= self._best[1] and not math.isnan(value):
            self._best = self._x.copy(), value, gradient
        return value, gradient

    def _project(self) -> None:
        if self._low is not None:
            np.clip(self._x, self._low, self._high, out=self._x)

    def _projected(self, gradient: Vector) -> float:
        """The largest element of the gradient, but of those that point out of the bounds."""
        if self._low is None or self._high is None:
            return float(np.abs(gradient).max())
        out = ((self._x <= self._low) & (gradient > 0)) | ((self._x >= self._high) & (gradient < 0))
        return float(np.abs(np.where(out, 0.0, gradient)).max())


def _objective(
    name: str, fun: Any, jac: Any, args: tuple[Any, ...]
) -> Callable[[Vector], tuple[float, Vector]]:
    """The function x -> (value, gradient) that fun and jac are, each called with a copy of x."""
    if not callable(fun):
        raise TypeError(f"fun must be a function, got {type(fun).__name__}")
    if jac is not True and not callable(jac):
        raise ValueError(
            f"{name} needs the gradient: pass jac=True if fun returns (value, gradient), or the gradient's "
            f"function as jac; got jac={jac!r}"
        )

    def evaluate(x: Vector) -> tuple[float, Vector]:
        point = x.copy()
        if jac is True:
            value, gradient = fun(point, *args)
        else:
            value, gradient = fun(point, *args), jac(point, *args)
        slopes = np.array(gradient, np.float64).reshape(-1)
        if slopes.size != x.size:
            raise ValueError(f"the gradient has {slopes.size} elements, x has {x.size}")
        return float(np.asarray(value).reshape(())), slopes

    return evaluate


def _limits(bounds: Any, size: int) -> tuple[Vector | None, Vector | None]:
    if bounds is None:
        return None, None
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        low, high = bounds.lb, bounds.ub
    else:
        pairs: Sequence[Any] = list(bounds)
        if len(pairs) != size or any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"bounds must be {size} pairs (low, high), one for each variable")
        low = [-math.inf if pair[0] is None else pair[0] for pair in pairs]
        high = [math.inf if pair[1] is None else pair[1] for pair in pairs]
    lows, highs = (np.broadcast_to(np.asarray(end, np.float64), (size,)) for end in (low, high))
    if not (lows <= highs).all():
        raise ValueError("bounds: a lower one is above the upper one")
    return lows, highs


def _caller(callback: Any) -> Callable[[Any], None] | None:
    """A function of an OptimizeResult that calls the user's callback in the form that it has."""
    if callback is None:
        return None
    if not callable(callback):
        raise TypeError(f"callback must be a function, got {type(callback).__name__}")
    if hasattr(callback, "stop_iteration"):  # wrapped by SciPy, which has looked at the form
        return callback  # type: ignore[no-any-return]
    try:
        names = set(inspect.signature(callback).parameters)
    except (TypeError, ValueError):
        names = set()
    if names == {"intermediate_result"}:
        return lambda result: callback(intermediate_result=result)
    return lambda result: callback(result.x)


__all__ = ["Method", "gpr_optimizer", "method", *(name.lower() for name in all_optimizers())]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Method:
        """One for each optimizer, by its name in lower case."""
        if name not in __all__:
            raise AttributeError(f"module 'fastgd.adapters.scipy' has no attribute {name!r}")
        return method(name)


def __dir__() -> list[str]:
    return __all__
