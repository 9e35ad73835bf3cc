"""When a training ends that gains nothing."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stopping:
    """A training ends that gains nothing over what there was before it.

    Parameters
    ----------
    best : float
        The lowest validation loss before.
    patience : int
        Epochs in a row without a gain after which it ends.
    min_gain : float, default 0.0
        Fraction of the lowest loss so far by which a loss has to be lower to be a gain.

    Examples
    --------
    >>> from keras_resnet.training.stopping import Stopping
    >>> stopping = Stopping(best=1.0, patience=2, min_gain=0.01)
    >>> stopping.ends([1.2, 0.9, 0.895]), stopping.ends([1.2, 0.9, 0.895, 0.895])
    (False, True)
    """

    best: float
    patience: int
    min_gain: float = 0.0

    def ends(self, losses: Sequence[float]) -> bool:
        """Whether to end after the epochs of these validation losses.

        Parameters
        ----------
        losses : sequence of float
            That of each epoch so far.

        Returns
        -------
        bool
        """
        best, waited = self.best, 0
        for loss in losses:
            if self.is_gain(loss, best):
                best, waited = loss, 0
            else:
                waited += 1
        return waited >= self.patience

    def is_gain(self, loss: float, best: float | None = None) -> bool:
        """Whether a loss is enough lower than another one, by default than that of before.

        Parameters
        ----------
        loss, best : float
            The losses.

        Returns
        -------
        bool
        """
        return loss < (self.best if best is None else best) * (1.0 - self.min_gain)
