"""Forecasting of time series: an LSTM that predicts the next values at every step.

The inputs of a step are, for each series, its departure from the mean of the season and
the last change of it, and the season itself as a point on a circle. The outputs are
the changes from now to 1, 2, … `horizon` steps ahead, so that a network which says nothing
is the persistence forecast. All scales come from the rows that may be learnt from, and go with
the model into its file.

Overfitting is the difficulty with a few hundred rows. The strength of the L2 penalty is
therefore chosen on the end of those rows, in two blocks of which each is forecast by a network trained on the
rows before it; then one network is trained on all of them.
"""

from cylstm.forecasting.forecaster import Forecaster

__all__ = ["Forecaster"]
