"""scikit-learn: its multi-layer perceptrons, trained by any of fastgd's optimizers.

    from fastgd.adapters.sklearn import MLPClassifier
    MLPClassifier((1024, 1024)).fit(X, y)                                       # the same, in less time
    MLPClassifier(optimizer="lion", optimizer_params={"lr": 1e-4}).fit(X, y)    # another rule

`AdamOptimizer` and `SGDOptimizer` stand in for the classes of these names in scikit-learn's private module
`sklearn.neural_network._stochastic_optimizers`, which others import too: the same interface, the same
formulas, up to rounding.

Needs `pip install "fastgd[sklearn]"`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from fastgd._arrays.tree import Array
from fastgd.optimizers import SGD, Adam, Optimizer, find

try:
    from sklearn import neural_network  # type: ignore[import-untyped]
except ImportError as error:
    raise ImportError(
        'fastgd.adapters.sklearn needs scikit-learn: pip install "fastgd[sklearn]"'
    ) from error

__all__ = ["AdamOptimizer", "MLPClassifier", "MLPRegressor", "OptimizerAdapter", "SGDOptimizer"]


class OptimizerAdapter:
    """Any of fastgd's optimizers behind scikit-learn's private interface.

    Args:
        optimizer: over a list of arrays. Those that `update_params` is given may be others of the same
            shapes; it goes on in them.

    Attributes:
        learning_rate: of the first parameter group, as the next step takes it.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._made: Optimizer | None = optimizer
        self._saved: tuple[Any, ...] = ()

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer; a copy's, or an unpickled one's, is there from its first step on."""
        if self._made is None:
            raise AttributeError("the optimizer is made again with the first update_params")
        return self._made

    @property
    def learning_rate(self) -> float:
        if self._made is not None:
            return float(self._made.param_groups[0].current["lr"])
        _, values, _, state = self._saved
        lr = values["lr"]
        return float(lr(state["step_count"]) if callable(lr) else lr)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.param_groups[0]["lr"] = value

    def update_params(self, params: Sequence[Array], grads: Sequence[Array]) -> None:
        """Take a step in place."""
        if self._made is None:
            kind, values, options, state = self._saved
            made = kind(list(params), **values, **options)
            made.load_state_dict(state)
            self._made, self._saved = made, ()
        self._made.step(grads, params=params)

    def __getstate__(self) -> dict[str, Any]:
        """Without the parameters, which are the model's: a copy goes on in those of its own."""
        state = dict(vars(self))
        made = state.pop("_made")
        if made is not None:
            values = {k: v for k, v in made.param_groups[0].items() if k != "params"}
            state["_saved"] = type(made), values, made.options, made.state_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _made=None)

    def iteration_ends(self, time_step: int) -> None:
        """After each epoch; `time_step` counts the samples so far."""

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:
        """Whether to stop, now that nothing gets better."""
        if verbose:
            print(msg + " Stopping.")
        return True


class AdamOptimizer(OptimizerAdapter):
    """Adam in scikit-learn's form, in which epsilon is added before the bias correction.

    Example:
        >>> import numpy as np
        >>> from fastgd.adapters.sklearn import AdamOptimizer
        >>> W = np.ones((2, 2))
        >>> AdamOptimizer([W], learning_rate_init=0.5).update_params([W], [np.ones((2, 2))])
        >>> W.round(6).tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """

    def __init__(
        self,
        params: Sequence[Array],
        learning_rate_init: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        betas = (beta_1, beta_2)
        super().__init__(
            Adam(list(params), lr=learning_rate_init, betas=betas, eps=epsilon, eps_hat=True)
        )


class SGDOptimizer(OptimizerAdapter):
    """SGD with momentum in scikit-learn's form, in which the learning rate enters the momentum.

    Args:
        params: a list of arrays.
        learning_rate_init: at first.
        lr_schedule: "constant", "invscaling" (learning_rate_init / (samples so far + 1)^power_t) or
            "adaptive" (divided by 5 where training stops to get better).
        momentum, nesterov, power_t: as in scikit-learn.
    """

    def __init__(
        self,
        params: Sequence[Array],
        learning_rate_init: float = 0.1,
        lr_schedule: str = "constant",
        momentum: float = 0.9,
        nesterov: bool = True,
        power_t: float = 0.5,
    ) -> None:
        super().__init__(
            SGD(
                list(params),
                lr=learning_rate_init,
                momentum=momentum,
                nesterov=nesterov,
                lr_in_momentum=True,
            )
        )
        self.learning_rate_init = learning_rate_init
        self.lr_schedule = lr_schedule
        self.power_t = power_t

    def iteration_ends(self, time_step: int) -> None:
        if self.lr_schedule == "invscaling":
            self.learning_rate = float(self.learning_rate_init) / (time_step + 1) ** self.power_t

    def trigger_stopping(self, msg: str, verbose: bool) -> bool:
        if self.lr_schedule != "adaptive":
            return super().trigger_stopping(msg, verbose)
        if self.learning_rate <= 1e-6:
            return super().trigger_stopping(f"{msg} Learning rate too small.", verbose)
        self.learning_rate /= 5.0
        if verbose:
            print(f"{msg} Setting learning rate to {self.learning_rate:f}")
        return False


class _WithOptimizer:
    """What both perceptrons add to scikit-learn's."""

    def __init_subclass__(cls) -> None:
        """scikit-learn reads the parameters of an estimator from the signature of its constructor."""
        super().__init_subclass__()
        base: Any = cls.__mro__[2]
        own = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
            for name in ("optimizer", "optimizer_params")
        ]
        theirs = inspect.signature(base.__init__).parameters.values()

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            self.optimizer = kwargs.pop("optimizer", None)
            self.optimizer_params = kwargs.pop("optimizer_params", None)
            base.__init__(self, *args, **kwargs)

        __init__.__signature__ = inspect.Signature([*theirs, *own])  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[method-assign]
        cls._parameter_constraints = {  # type: ignore[attr-defined]
            **base._parameter_constraints,
            "optimizer": [str, type, None],
            "optimizer_params": [dict, None],
        }

    @property
    def _optimizer(self) -> Any:
        """What updates the parameters: in place of scikit-learn's own, which its `fit` assigns."""
        try:
            return vars(self)["_fast_optimizer"]
        except KeyError:
            raise AttributeError("_optimizer") from None

    @_optimizer.setter
    def _optimizer(self, theirs: Any) -> None:
        model: Any = self
        params = [*model.coefs_, *model.intercepts_]
        options = dict(model.optimizer_params or {})
        if model.optimizer is not None:
            kind: Any = find(model.optimizer)
            made = OptimizerAdapter(kind(params, **{"lr": model.learning_rate_init, **options}))
        elif model.solver == "sgd":
            made = SGDOptimizer(
                params,
                model.learning_rate_init,
                model.learning_rate,
                model.momentum,
                model.nesterovs_momentum,
                model.power_t,
            )
        else:
            made = AdamOptimizer(
                params, model.learning_rate_init, model.beta_1, model.beta_2, model.epsilon
            )
        if options and model.optimizer is None:
            raise ValueError("optimizer_params needs optimizer, of which they are parameters")
        vars(self)["_fast_optimizer"] = made


_EXTRA = """

    Two parameters more than scikit-learn's:

    optimizer : str or class, default=None
        One of fastgd.optimizers; None for that of `solver` ("adam" or "sgd"), in scikit-learn's form.

    optimizer_params : dict, default=None
        Its hyperparameters, numbers or schedules of the step; lr is `learning_rate_init` if not given.
    """


class MLPClassifier(_WithOptimizer, neural_network.MLPClassifier):  # type: ignore[misc]
    __doc__ = "scikit-learn's MLPClassifier with fastgd's optimizers." + _EXTRA


class MLPRegressor(_WithOptimizer, neural_network.MLPRegressor):  # type: ignore[misc]
    __doc__ = "scikit-learn's MLPRegressor with fastgd's optimizers." + _EXTRA
