"""When to end a training run that gains nothing."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Stopping:
    """Ends a training run that gains nothing over what came before it.

    Parameters
    ----------
    best : float
        The lowest validation loss before the run.
    patience : int
        Epochs in a row without a gain after which it ends.
    min_gain : float, default 0.0
        A loss is a gain if it is below the lowest so far by more than this fraction of it.

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
        """Whether to end after epochs with these validation losses.

        Parameters
        ----------
        losses : sequence of float
            The loss of each epoch so far.

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
        """Whether a loss is a gain over another one.

        Parameters
        ----------
        loss : float
            The loss.
        best : float, optional
            The other one. Default: the lowest loss before the run.

        Returns
        -------
        bool
        """
        return loss < (self.best if best is None else best) * (1.0 - self.min_gain)
