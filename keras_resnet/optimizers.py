"""Optimizers and schedules that Keras lacks."""

from collections.abc import Mapping, Sequence

import keras

_NOT_DECAYED = ("bias", "gamma", "beta")


def name_of_rate(rates: Mapping[str, float], path: str) -> str | None:
    """Find the learning rate for a variable.

    Parameters
    ----------
    rates : mapping of str to float
        As in `LayerwiseSGD`.
    path : str
        Path of the variable, such as "conv2_block1_1_conv/kernel".

    Returns
    -------
    str or None
        A key of `rates`; None if none is for it.

    Examples
    --------
    >>> from keras_resnet.optimizers import name_of_rate
    >>> name_of_rate({"conv2": 0.1}, "conv2_block1_1_conv/kernel")
    'conv2'
    >>> name_of_rate({"conv2": 0.1}, "conv2d_17/kernel") is None
    True
    """
    parts = path.split("/")
    found = [
        name for name in rates if any(part == name or part.startswith(f"{name}_") for part in parts)
    ]
    return max(found, key=len, default=None)


def check_rates(rates: Mapping[str, float], model: keras.Model) -> None:
    """Make sure that learning rates are for layers that a model has.

    Parameters
    ----------
    rates : mapping of str to float
        As in `LayerwiseSGD`.
    model : keras.Model
        The model.

    Raises
    ------
    ValueError
        If one of them would have no effect.
    """
    for name in rates:
        if not any(name_of_rate({name: 1.0}, each.path) for each in model.weights):
            raise ValueError(
                f"rates={dict(rates)!r}: {model.name} has no layer or stage {name!r}, so its rate "
                "would have no effect."
            )


class _Layerwise(keras.optimizers.Optimizer):
    """Mixin for Keras' optimizers: a learning rate for each layer, and clipping of whole batches.

    Subclasses take `_step`, given whether weight decay applies to the variable.
    """

    def __init__(self, *args, rates: Mapping[str, float] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.rates = dict(rates or {})

    def decays(self, path: str) -> bool:
        """Tell whether weight decay applies to a variable.

        Parameters
        ----------
        path : str
            Path of the variable, such as "conv1_conv/kernel".

        Returns
        -------
        bool
        """
        return path.rpartition("/")[2] not in _NOT_DECAYED

    def update_step(self, gradient, variable, learning_rate):
        # This is the backend's variable. Keras' own knows the layer it belongs to.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        name = name_of_rate(self.rates, path)
        if name is not None:
            learning_rate = learning_rate * keras.ops.cast(self.rates[name], learning_rate.dtype)
        self._step(gradient, variable, learning_rate, self.decays(path))

    def _step(self, gradient, variable, learning_rate, decays):
        raise NotImplementedError

    @property
    def _has_replicas(self):
        """Whether each gradient is of a replica's part of the batch, as only with TensorFlow."""
        strategy = getattr(self, "_distribution_strategy", None)
        return strategy is not None and strategy.num_replicas_in_sync > 1

    def _clip_gradients(self, grads):
        """Clip gradients, unless they still have to be summed over replicas."""
        return grads if self._has_replicas else super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        """Sum the gradients over replicas, and clip those of the whole batch."""
        summed = super()._all_reduce_sum_gradients(grads_and_vars)
        if not self._has_replicas:
            return summed
        grads, variables = zip(*summed, strict=True)
        return list(zip(super()._clip_gradients(grads), variables, strict=True))

    def get_config(self):
        return {**super().get_config(), "rates": self.rates}


@keras.saving.register_keras_serializable(package="keras_resnet")
class LayerwiseSGD(_Layerwise, keras.optimizers.SGD):
    """Stochastic gradient descent as in the papers, with a learning rate for each layer.

    Weight decay is part of the gradient, so that momentum acts on it as well; Keras' own
    `weight_decay` acts on the weights alone, and is ten times weaker with a momentum of 0.9.
    `global_clipnorm` clips the gradient of the whole batch, where Keras clips that of each replica.

    Parameters
    ----------
    *args, **kwargs
        As for `keras.optimizers.SGD`.
    l2 : float, default 0.0
        Weight decay: `l2` times the weight is added to its gradient, except for biases and
        normalization.
    rates : mapping of str to float, optional
        Factors of the learning rate, by the names of layers and stages: "conv2" is for a layer of
        that name and those whose names begin with "conv2_". The longest name counts; 1 for other
        layers.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 3.4: weight decay.
    Howard and Ruder, Universal Language Model Fine-tuning for Text Classification, ACL 2018,
    section 3.2: discriminative fine-tuning.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.optimizers import LayerwiseSGD
    >>> slow, fast = (keras.Variable([1.0], name=name) for name in ("conv2_kernel", "kernel"))
    >>> LayerwiseSGD(1.0, rates={"conv2": 0.1}).apply([keras.ops.ones(1)] * 2, [slow, fast])
    >>> [round(float(variable.numpy()[0]), 3) for variable in (slow, fast)]
    [0.9, 0.0]
    """

    def __init__(self, *args, l2: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.l2 = l2

    def _step(self, gradient, variable, learning_rate, decays):
        if self.l2 and decays:
            gradient = gradient + self.l2 * keras.ops.cast(variable, gradient.dtype)
        keras.optimizers.SGD.update_step(self, gradient, variable, learning_rate)

    def get_config(self):  # noqa: D102
        return {**super().get_config(), "l2": self.l2}


@keras.saving.register_keras_serializable(package="keras_resnet")
class LayerwiseAdamW(_Layerwise, keras.optimizers.AdamW):
    """AdamW, with a learning rate for each layer.

    Weight decay takes `weight_decay` times the layer's learning rate off the weights, as in
    PyTorch. Biases and normalization do not decay; with Keras' own AdamW they do.
    `global_clipnorm` clips the gradient of the whole batch, where Keras clips that of each replica.

    Parameters
    ----------
    *args, **kwargs
        As for `keras.optimizers.AdamW`.
    rates : mapping of str to float, optional
        As in `LayerwiseSGD`.

    References
    ----------
    Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.optimizers import LayerwiseAdamW
    >>> variables = [keras.Variable([1.0], name=name) for name in ("kernel", "bias")]
    >>> LayerwiseAdamW(0.1, weight_decay=0.5).apply([keras.ops.zeros(1)] * 2, variables)
    >>> [round(float(variable.numpy()[0]), 3) for variable in variables]
    [0.95, 1.0]
    """

    def _apply_weight_decay(self, variables):
        """Leave it to the steps, which know the layers' rates and what does not decay."""

    def _step(self, gradient, variable, learning_rate, decays):
        if self.weight_decay and decays:
            rate = keras.ops.cast(learning_rate * self.weight_decay, variable.dtype)
            self.assign_sub(variable, variable * rate)
        keras.optimizers.AdamW.update_step(self, gradient, variable, learning_rate)


@keras.saving.register_keras_serializable(package="keras_resnet")
class LayerwiseLamb(_Layerwise, keras.optimizers.Lamb):
    """LAMB as in its paper and in timm, with a learning rate for each layer.

    The norm of an update, which is brought to the norm of the weights, is that of Adam's update
    and weight decay together. Keras' own LAMB decays the weights separately, and many times faster.
    Biases and normalization do not decay, and are updated as Adam does it.
    `global_clipnorm` clips the gradient of the whole batch, where Keras clips that of each replica.

    Parameters
    ----------
    *args, **kwargs
        As for `keras.optimizers.Lamb`.
    rates : mapping of str to float, optional
        As in `LayerwiseSGD`.

    References
    ----------
    You et al., Large Batch Optimization for Deep Learning, ICLR 2020, algorithm 2.

    Examples
    --------
    >>> import keras
    >>> from keras_resnet.optimizers import LayerwiseLamb
    >>> kernel = keras.Variable([3.0, 4.0], name="kernel")
    >>> LayerwiseLamb(0.1).apply([keras.ops.array([1.0, -1.0])], [kernel])
    >>> [round(float(weight), 3) for weight in kernel.numpy()]  # a tenth of its norm further
    [2.646, 4.354]
    """

    def _apply_weight_decay(self, variables):
        """Leave it to the steps, where it is a part of the update."""

    def _step(self, gradient, variable, learning_rate, decays):
        ops, dtype, index = keras.ops, variable.dtype, self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        gradient, rate = ops.cast(gradient, dtype), ops.cast(learning_rate, dtype)
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1 - self.beta_2))
        step = ops.cast(self.iterations + 1, dtype)
        mean = momentum / (1 - ops.power(ops.cast(self.beta_1, dtype), step))
        square = velocity / (1 - ops.power(ops.cast(self.beta_2, dtype), step))
        update = mean / (ops.sqrt(square) + self.epsilon)
        if decays:
            weights = ops.cast(variable, dtype)
            update = update + (self.weight_decay or 0.0) * weights
            of_weights, of_update = (ops.sqrt(ops.sum(ops.square(x))) for x in (weights, update))
            both = ops.logical_and(of_weights > 0, of_update > 0)
            update = update * ops.where(both, of_weights / ops.where(both, of_update, 1.0), 1.0)
        self.assign_sub(variable, rate * update)


@keras.saving.register_keras_serializable(package="keras_resnet")
class StepDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that is divided by 10 at certain steps, after a warm-up.

    Parameters
    ----------
    learning_rate : float
        The highest rate.
    boundaries : sequence of int
        Steps at which the rate is divided by 10.
    warm_up_steps : int, default 0
        Number of steps at the start in which the rate rises from 0.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, sections 3.4 and 4.2.

    Examples
    --------
    >>> from keras_resnet.optimizers import StepDecay
    >>> schedule = StepDecay(0.1, boundaries=[10, 20])
    >>> [round(float(schedule(step)), 4) for step in (0, 9, 10, 20)]
    [0.1, 0.1, 0.01, 0.001]
    """

    def __init__(self, learning_rate: float, boundaries: Sequence[int], warm_up_steps: int = 0):
        self.learning_rate = learning_rate
        self.boundaries, self.warm_up_steps = list(boundaries), warm_up_steps

    def __call__(self, step):  # noqa: D102
        step = keras.ops.cast(step, "float32")
        boundaries = keras.ops.convert_to_tensor(self.boundaries, "float32")
        passed = keras.ops.sum(keras.ops.cast(step >= boundaries, "float32"))
        warmth = keras.ops.minimum(step / max(self.warm_up_steps, 1), 1.0)
        rate = self.learning_rate * keras.ops.power(0.1, passed)
        return rate * warmth if self.warm_up_steps else rate

    def get_config(self):  # noqa: D102
        return {
            "learning_rate": self.learning_rate,
            "boundaries": self.boundaries,
            "warm_up_steps": self.warm_up_steps,
        }
