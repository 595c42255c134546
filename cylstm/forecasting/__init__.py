"""Forecasting of time series: an LSTM that predicts the next values at every step.

The inputs of a step are, for each series, its anomaly (the difference from the mean of its season) and
the last change of the anomaly, and the season as a point on a circle. The outputs are the changes from
now to 1, 2, … `horizon` steps ahead, so a network whose outputs are 0 gives the persistence forecast.
All scales come from the training rows and are saved with the model.

With a few hundred rows, overfitting is the main difficulty. The strength of the L2 penalty is therefore
chosen on the last training rows, in two blocks: each is forecast by a network trained on the rows before
it. Then the final network is trained on all rows.
"""

from cylstm.forecasting.forecaster import Forecaster

__all__ = ["Forecaster"]
