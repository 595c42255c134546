"""The estimators keep scikit-learn's contract, and learn what they are for."""

import pickle
import signal
import subprocess
import sys

import joblib
import numpy as np
import pytest

import cylstm

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from joblib import Parallel, delayed
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import _get_feature_names

from cylstm._engine import isa
from cylstm.sklearn import Forecaster, SequenceClassifier, SequenceRegressor
from cylstm.training.loop import Loop

SMALL = {
    "hidden_size": 16, "pooling": "mean", "dropout": 0.1, "epochs": 20, "batch_size": 32,
    "learning_rate": 0.02, "n_jobs": 1, "random_state": 0,
}  # fmt: skip
SERIES = {
    "horizon": 2,
    "window": 8,
    **{k: v for k, v in SMALL.items() if k != "pooling"},
    "epochs": 4,
    "validation_fraction": None,
}
ONE_SERIES = "the rows of X are one series, of which predict gives the next rows: not one result a row, and "
EXPECTED = {
    "check_methods_sample_order_invariance": ONE_SERIES + "their order is what it reads",
    "check_methods_subset_invariance": ONE_SERIES + "a part of them is another series",
    "check_fit1d": "a vector is a series of one channel",
}


def expected_failures(estimator):
    return EXPECTED if isinstance(estimator, Forecaster) else {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [SequenceClassifier(**SMALL), SequenceRegressor(**SMALL | {"epochs": 60}), Forecaster(**SERIES)],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def ragged(n=60, channels=2, seed=0):
    """Sequences of 5 to 14 steps, whose class shifts their first channel."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    shift = np.eye(channels)[0] * 4
    X = [rng.standard_normal((rng.integers(5, 15), channels)) + (label - 1) * shift for label in y]
    return X, np.array(["low", "middle", "high"])[y]


def noisy_sine(n, seed=0):
    return np.sin(np.arange(n) / 5) + np.random.default_rng(seed).normal(0, 0.2, n)


def same_bits(a, b):
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def assert_same_in_any_batch(a, b):
    """To the bit; but BLAS cuts its float32 sums by sizes, and forecasts here are of size 0.1 to 10."""
    np.testing.assert_allclose(a, b, rtol=0 if isa.path() == "packed" else 1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_separable_classes_are_learnt_wholly(cell):
    X, y = ragged(120)
    classifier = SequenceClassifier(cell=cell, **SMALL).fit(X[:80], y[:80])
    assert classifier.score(X[80:], y[80:]) == 1.0
    assert classifier.classes_.tolist() == ["high", "low", "middle"]
    probabilities = classifier.predict_proba(X[80:])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(
        classifier.classes_[probabilities.argmax(axis=1)], classifier.predict(X[80:])
    )


@pytest.mark.parametrize("outputs", [1, 2])
def test_sums_of_sequences_are_learnt(rng, outputs):
    X = rng.standard_normal((300, 8, 2))
    y = X.sum(axis=1) * [3.0, 0.1] + [0.0, 50.0]
    y = y[:, 0] if outputs == 1 else y
    regressor = SequenceRegressor(**SMALL, num_layers=2).fit(X[:200], y[:200])
    assert regressor.predict(X[200:]).shape == y[200:].shape
    assert regressor.score(X[200:], y[200:]) > 0.9


def test_ragged_list_equals_padding_with_lengths():
    X, y = ragged(40)
    classifier = SequenceClassifier(**SMALL).fit(X, y)
    lengths = np.array([len(x) for x in X])
    padded = np.full((40, lengths.max(), 2), 1e6)
    for row, x in zip(padded, classifier.model_.scalers["x"].transform(X), strict=True):
        row[: len(x)] = x
    logits = classifier.model_(padded, lengths=lengths)[0]
    np.testing.assert_array_equal(classifier.classes_[logits.argmax(axis=1)], classifier.predict(X))
    exp = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(
        classifier.predict_proba(X), exp / exp.sum(axis=1, keepdims=True), rtol=1e-6, atol=1e-12
    )


def test_every_form_of_sequences_of_one_channel_gives_the_same(rng):
    """A table, three axes, lists of vectors, of columns and of lists, an array of objects, a data frame."""
    table = rng.standard_normal((30, 6))
    y = table.sum(axis=1)
    objects = np.empty(30, object)
    objects[:] = list(table)
    forms = [table, table[..., None], list(table), list(table[..., None]), table.tolist(), objects]
    frames = pytest.importorskip("pandas", reason="pandas is not installed; it makes the frames")
    forms.append(frames.DataFrame(table))
    expected = SequenceRegressor(**SMALL).fit(table, y).predict(table)
    fitted = [SequenceRegressor(**SMALL).fit(form, y) for form in forms]
    assert all(same_bits(model.predict(table), expected) for model in fitted)
    assert all(same_bits(fitted[0].predict(form), expected) for form in forms)
    assert [model.n_features_in_ for model in fitted] == [6, 1, 1, 1, 6, 1, 6]


def test_data_frames_name_their_columns():
    frames = pytest.importorskip("pandas", reason="pandas is not installed; it makes the frames")
    table = frames.DataFrame(np.random.default_rng(0).standard_normal((20, 3)), columns=list("abc"))
    regressor = SequenceRegressor(**SMALL).fit(table, table["a"])
    assert regressor.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names should match"):
        regressor.predict(table[["c", "b", "a"]])
    parts = [table[:7], table[7:12], table[12:]]
    assert regressor.fit(parts, [0.0, 1.0, 2.0]).predict(parts).shape == (3,)
    assert not hasattr(regressor, "feature_names_in_")
    forecaster = Forecaster(**SERIES).fit(table)
    assert_same_in_any_batch(forecaster.predict(table), forecaster.predict([table])[0])
    assert Forecaster(**SERIES).fit(table["a"]).predict(table["a"]).shape == (2,)


ESTIMATORS = [SequenceClassifier, SequenceRegressor, Forecaster]


def problem(kind):
    """An estimator, what it is fitted with, and what it predicts from."""
    if kind is Forecaster:
        return Forecaster(**SERIES), (noisy_sine(90),), noisy_sine(40, seed=1)
    X, y = ragged(50)
    return kind(**SMALL), (X, y if kind is SequenceClassifier else [x.sum() for x in X]), X[:20]


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_seed_is_bit_identical_for_threads_and_copies(kind, tmp_path):
    estimator, given, new = problem(kind)
    predict = "predict_proba" if kind is SequenceClassifier else "predict"
    expected = getattr(estimator.fit(*given), predict)(new)
    twin = clone(estimator).set_params(n_jobs=2).fit(*given)
    assert same_bits(getattr(twin, predict)(new), expected)
    assert same_bits(getattr(pickle.loads(pickle.dumps(estimator)), predict)(new), expected)
    other = clone(estimator).set_params(random_state=1).fit(*given)
    assert not np.array_equal(getattr(other, predict)(new), expected)
    cylstm.save(estimator.model_, tmp_path / "model.safetensors")
    estimator.model_ = cylstm.load(tmp_path / "model.safetensors")
    assert same_bits(getattr(estimator, predict)(new), expected)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_partial_fit_goes_on_where_it_was_also_in_a_copy(kind):
    estimator, given, new = problem(kind)
    estimator.set_params(dropout=0.2, learning_rate=0.01)
    first = {"classes": ["high", "low", "middle"]} if kind is SequenceClassifier else {}
    estimator.partial_fit(*given, **first)
    losses = [estimator.history_.epochs[-1]["loss"]]
    for _ in range(6):
        copy = pickle.loads(pickle.dumps(estimator))
        estimator.partial_fit(*given)
        losses.append(estimator.history_.epochs[-1]["loss"])
    assert losses[-1] < 0.8 * losses[0]
    assert same_bits(copy.partial_fit(*given).predict(new), estimator.predict(new))
    weights = estimator.fit(*given).model_.state_dict()
    estimator.set_params(learning_rate=0.0).partial_fit(*given)
    assert all(same_bits(weights[name], now) for name, now in estimator.model_.state_dict().items())


def test_early_stopping_keeps_the_best_weights():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 5)), np.arange(60) % 2  # nothing to learn
    settings = SMALL | {"epochs": 200, "validation_fraction": 0.3, "patience": 4}
    for estimator in (SequenceClassifier(**settings), SequenceRegressor(**settings)):
        history = estimator.fit(X, y).history_
        assert history.stopped == "early"
        assert len(history.epochs) == history.best_epoch + 4 < 200


def test_a_forecaster_holds_out_the_last_rows_only():
    """What is held out changes no scaler, and no weight in a training of one epoch."""
    series, covariates = noisy_sine(100), np.arange(100.0)
    later = series.copy()
    later[80:] += 9 * np.arange(20)
    options = SERIES | {"epochs": 1, "validation_fraction": 0.2}
    fitted = [Forecaster(**options).fit(rows, covariates=covariates) for rows in (series, later)]
    forecasts = [model.predict(series[:70], covariates[:72]) for model in fitted]
    assert same_bits(*forecasts)
    losses = [model.history_.epochs[0]["validation"] for model in fitted]
    assert losses[1] > 2 * losses[0]
    with pytest.raises(ValueError, match="validation_fraction: expected more than horizon = 2 training rows"):
        Forecaster(**options).fit(series[:6])


def test_forecaster_accuracy_and_interval_coverage():
    series, h, W = noisy_sine(900), 4, 24
    options = {"hidden_size": 24, "random_state": 0, "n_jobs": 1}
    forecaster = Forecaster(h, window=W, **options).fit(series[:500])
    starts = range(500, 900 - W - h)
    before, after = (np.stack([series[s + a : s + b] for s in starts]) for a, b in ((0, W), (W, W + h)))
    forecasts = forecaster.predict(list(before))
    assert forecasts.shape == (len(starts), h)
    error, persistence = (np.sqrt(np.mean((guess - after) ** 2)) for guess in (forecasts, before[:, -1:]))
    assert error < 0.26 < 0.4 < persistence  # the noise alone has 0.2
    lower, upper = forecaster.predict_interval(list(before))
    assert 0.7 < np.mean((lower <= after) & (after <= upper)) < 0.9
    assert forecaster.score(series[500:]) > 0.7
    quantiles = forecaster.predict_quantiles(before[0])
    assert quantiles.shape == (h, 3)
    assert (np.diff(quantiles) >= 0).all()
    assert_same_in_any_batch(quantiles[:, 1], forecasts[0])
    mean = Forecaster(h, window=W, quantiles=None, **options).fit(series[:500])
    assert np.sqrt(np.mean((mean.predict(list(before)) - after) ** 2)) < 0.26
    assert not hasattr(mean, "predict_interval")


def test_score_is_r2_of_forecasts_from_whole_windows():
    series = np.column_stack([noisy_sine(60), noisy_sine(60, seed=1)])
    forecaster = Forecaster(**SERIES).fit(series)
    ends = range(8, 59)
    forecasts = np.stack([forecaster.predict(series[:end]) for end in ends])
    true = np.stack([series[end : end + 2] for end in ends])
    expected = r2_score(true.reshape(51, -1), forecasts.reshape(51, -1))
    assert forecaster.score(series) == pytest.approx(expected, rel=1e-6)


def test_several_channels_and_several_series():
    parts = [np.column_stack([noisy_sine(n, n), np.arange(n) / 9]) for n in (80, 50, 60)]
    forecaster = Forecaster(**SERIES).fit(parts)
    together = forecaster.predict(parts)
    assert together.shape == (3, 2, 2)
    for part, ahead in zip(parts, together, strict=True):
        assert_same_in_any_batch(forecaster.predict(part), ahead)
    cube = np.stack([part[-50:] for part in parts])
    assert_same_in_any_batch(forecaster.predict(cube), forecaster.predict(list(cube)))
    drift = forecaster.predict(parts[0])[:, 1] - parts[0][-1, 1]
    np.testing.assert_allclose(drift, [1 / 9, 2 / 9], rtol=0.2)


def test_covariates_help_when_the_series_depends_on_them(rng):
    price = rng.standard_normal(500)
    sales = 5 - 2 * price + rng.normal(0, 0.1, 500)
    options = SERIES | {"epochs": 15}
    without = Forecaster(**options).fit(sales[:400]).score(sales[400:])
    forecaster = Forecaster(**options).fit(sales[:400], covariates=price[:400])
    assert without < 0.3 < 0.9 < forecaster.score(sales[400:], covariates=price[400:])
    ahead = forecaster.predict(sales[:450], price[:452])
    np.testing.assert_allclose(ahead, sales[450:452], atol=0.8)
    with config_context(enable_metadata_routing=True):
        routed = clone(forecaster).set_fit_request(covariates=True).set_score_request(covariates=True)
        search = GridSearchCV(routed, {"epochs": [15]}, cv=TimeSeriesSplit(2)).fit(sales, covariates=price)
    assert search.best_score_ > 0.8
    several = forecaster.predict([sales[:450], sales[:300]], [price[:452], price[:302]])
    assert_same_in_any_batch(several[0], ahead)


@pytest.mark.slow
def test_searches_and_pipelines():
    X, y = np.random.default_rng(0).standard_normal((60, 6)), np.arange(60) % 2
    X[y == 1] += 2
    search = GridSearchCV(SequenceClassifier(**SMALL), {"cell": ["gru", "rnn"]}, cv=3, n_jobs=2).fit(X, y)
    assert search.best_score_ > 0.9
    in_list = GridSearchCV(SequenceClassifier(**SMALL), {"epochs": [5]}, cv=2).fit(list(X), y)
    assert len(in_list.predict([X[0], X[1, :4]])) == 2
    assert make_pipeline(StandardScaler(), SequenceClassifier(**SMALL)).fit(X, y).score(X, y) > 0.9
    differences = FunctionTransformer(np.diff, kw_args={"prepend": 0})
    assert make_pipeline(differences, SequenceRegressor(**SMALL)).fit(X, y).predict(X).shape == (60,)
    sine = noisy_sine(150)[:, None]
    grid = {"window": [2, 12], "n_jobs": [None]}
    search = GridSearchCV(Forecaster(**SERIES | {"epochs": 10}), grid, cv=TimeSeriesSplit(2), n_jobs=2)
    assert search.fit(sine).predict(sine).shape == (2, 1)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_threads_are_counted_as_scikit_learn_counts_jobs(monkeypatch):
    monkeypatch.setattr("cylstm.sklearn._base.usable_cpus", lambda: 8)
    with cylstm.num_threads(3):
        assert [SequenceRegressor(n_jobs=n)._threads() for n in (None, 2, -1, -3, -9)] == [3, 2, 8, 6, 1]
    assert Parallel(n_jobs=2)(delayed(SequenceRegressor()._threads)() for _ in range(2)) == [1, 1]
    with pytest.raises(ValueError, match="n_jobs: expected a positive int, got 0"):
        SequenceRegressor(n_jobs=0)._threads()


def test_error_messages():
    X, y = ragged(12)
    hole = [*X[:3], np.full((4, 2), np.nan), *X[4:]]
    small = SequenceClassifier(**SMALL | {"epochs": 1})
    for call, message in [
        (lambda: small.fit(hole, y), r"X\[3\]\[0, 0\] \(step, channel\): expected a finite number, got nan"),
        (lambda: small.fit(np.full((2, 3, 1), np.inf), y[:2]), r"X\[0, 0, 0\] \(sample, step, channel\)"),
        (lambda: small.fit([*X[:-1], np.ones((3, 3))], y), r"X\[11\]: expected \(length, 2\)"),
        (lambda: small.fit([*X[:-1], np.ones((0, 2))], y), r"X\[11\]: expected at least one step"),
        (lambda: small.fit(X, y[:-1]), "inconsistent numbers of samples"),
        (lambda: small.fit(X, ["a"] * 12), "y: expected at least two classes, got 1 class"),
        (lambda: clone(small).set_params(cell="lst").fit(X, y), "cell: expected one of lstm, gru, rnn"),
        (
            lambda: clone(small).set_params(pooling="sum").fit(X, y),
            "pooling: expected one of last, mean, max",
        ),
        (lambda: clone(small).set_params(learning_rate=-1).fit(X, y), r"learning_rate: .* got -1"),
        (
            lambda: clone(small).set_params(validation_fraction=0.1).fit(X, y),
            "validation_fraction: .*pass None",
        ),
        (lambda: clone(small).set_params(epochs=0).fit(X, y), "epochs: expected a positive int, got 0"),
        (
            lambda: clone(small).set_params(validation_fraction=1).fit(X, y),
            r"validation_fraction: .*\[0, 1\)",
        ),
        (lambda: small.fit(X, y).predict([x[:, :1] for x in X]), "X: expected sequences of 2 channels"),
        (lambda: small.partial_fit(X, ["new"] * 12), "y: expected classes among .* got .*new"),
        (lambda: clone(small).partial_fit(X, y), "classes: expected all classes in the first call"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="y: expected classes of one sortable type, got int and str"):
        small.fit(X, np.array(["a", 1] * 6, object))


def test_errors_of_the_forecaster():
    rows, cov = noisy_sine(40), np.ones((40, 3))
    forecaster = Forecaster(**SERIES)
    for call, message in [
        (lambda: forecaster.fit(rows[:2]), "X: expected more rows than horizon = 2, got n_samples=2"),
        (lambda: clone(forecaster).set_params(quantiles=(0.1, 0.9)).fit(rows), "ascending numbers with 0.5"),
        (
            lambda: forecaster.fit(rows, covariates=cov[:30]),
            r"covariates: expected \(40, 3\), for the 40 rows",
        ),
        (lambda: forecaster.fit(rows, covariates=cov).predict(rows), "covariates: expected 3 columns, as in"),
        (lambda: forecaster.predict(rows, cov), r"expected \(42, 3\), for the 40 rows of X and 2 after them"),
        (
            lambda: forecaster.predict([rows, rows], [cov]),
            "covariates: expected covariates of 2 series, got 1",
        ),
        (lambda: forecaster.predict(rows, np.full((42, 3), np.nan)), r"covariates\[0, 0\] .* finite number"),
        (lambda: forecaster.fit(rows).predict(rows, cov), "covariates: expected None, as in fit"),
        (lambda: forecaster.predict([np.ones((5, 2))]), "X: expected series of 1 channels, as Forecaster"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.process
def test_scikit_learn_is_imported_lazily():
    code = """
import sys, cylstm
print(any(name.split(".")[0] in ("sklearn", "joblib") for name in sys.modules))
sys.modules["sklearn"] = None
try:
    import cylstm.sklearn
except ImportError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, message = result.stdout.splitlines()
    assert found == "False"
    assert message.endswith('expected scikit-learn to be installed; pip install "cylstm[sklearn]"')


@pytest.mark.parametrize("form", ["series", "list", "frame"])
def test_series_of_polars_are_those_of_numpy(form):
    polars = pytest.importorskip("polars", reason="polars is not installed")
    values = np.sin(np.arange(80) / 3)
    forms = {
        "series": (polars.Series("load", values), values),
        "list": ([polars.Series(values), polars.Series(values[:50])], [values, values[:50]]),
        "frame": (polars.DataFrame({"load": values, "other": values**2}), np.stack([values, values**2], 1)),
    }

    def predicted(series):
        forecaster = Forecaster(horizon=2, window=5, hidden_size=4, epochs=1, random_state=0)
        return forecaster.fit(series).predict(series)

    ours, numpys = forms[form]
    np.testing.assert_array_equal(predicted(ours), predicted(numpys))


def test_columns_of_polars_have_names():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    table = polars.DataFrame({"a": np.arange(12.0) % 5, "b": np.arange(12.0) % 3})
    if _get_feature_names(table) is None:
        pytest.skip("this scikit-learn reads no names of this polars, whose frames have no __dataframe__")
    classifier = SequenceClassifier(hidden_size=2, epochs=1, random_state=0)
    classifier.fit(table, polars.Series(["x", "y"] * 6))
    assert classifier.feature_names_in_.tolist() == ["a", "b"]
    assert classifier.classes_.tolist() == ["x", "y"]
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(table.rename({"a": "c"}))


MISSING = r"expected a value, got a missing one \(masked, null or NA\)"


def test_no_estimator_reads_masked_values_dates_or_texts(rng):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X, y = rng.standard_normal((20, 5, 2)), np.repeat([0, 1], 10)
    hole, gap = np.ma.masked_where(X.max() == X, X), np.ma.masked_where(y > 5, y * 1.0)
    gap[3] = np.ma.masked
    classifier, regressor = (kind(hidden_size=2, epochs=1).fit(X, y) for kind in ESTIMATORS[:2])
    when = pandas.DataFrame({"when": pandas.date_range("2020", periods=20), "load": np.arange(20.0)})
    for fit, error, message in [
        (lambda: classifier.fit(hole, y), ValueError, r"X\[\d+, \d, \d\]: " + MISSING),
        (lambda: classifier.fit(list(hole), y), ValueError, r"X\[\d+\]\[\d, \d\]: " + MISSING),
        (lambda: classifier.fit(X, gap), ValueError, r"y\[3\]: " + MISSING),
        (lambda: classifier.fit(X, pandas.array([None, 1] * 10)), ValueError, r"y\[0\]: " + MISSING),
        (lambda: classifier.fit(X, ["a", None] * 10), ValueError, r"y\[1\]: " + MISSING),
        (lambda: classifier.fit(X, np.array(["a", np.nan] * 10, object)), ValueError, r"y\[1\]: " + MISSING),
        (lambda: classifier.predict(hole), ValueError, MISSING),
        (lambda: regressor.fit(X, gap), ValueError, r"y\[3\]: " + MISSING),
        (lambda: regressor.predict(hole), ValueError, MISSING),
        (lambda: classifier.fit(np.zeros((20, 5), "M8[D]"), y), TypeError, "X: expected real numbers"),
        (lambda: classifier.fit(np.zeros((20, 5, 2), "m8[s]"), y), TypeError, "X: expected real numbers"),
        (lambda: regressor.fit(X, np.zeros(20, "M8[D]")), TypeError, "y: expected real numbers"),
        (lambda: classifier.fit(when, y), TypeError, r"X: expected columns.*others: \['when'\]"),
        (lambda: Forecaster(window=3).fit(when), TypeError, r"X: expected columns.*others: \['when'\]"),
        (lambda: Forecaster(window=3).fit(hole.reshape(-1, 2)), ValueError, MISSING),
        (
            lambda: Forecaster(window=3).fit(X[:, 0], covariates=gap),
            ValueError,
            r"covariates\[3\]: " + MISSING,
        ),
    ]:
        with pytest.raises(error, match=message):
            fit()


@pytest.mark.parametrize(
    "form", [lambda X: X, lambda X: pytest.importorskip("pandas", reason="needs pandas").DataFrame(X)]
)
def test_nan_in_a_table_is_refused_where_it_stands(rng, form):
    X, y = rng.standard_normal((20, 5)), np.repeat([0, 1], 10)
    X[7, 2] = np.nan
    message = r"X\[7, 2\]: expected a finite number, got nan; impute or drop missing values \(NaN\)"
    for fit in (
        lambda: SequenceClassifier(hidden_size=2, epochs=1).fit(form(X), y),
        lambda: Forecaster(window=3).fit(form(X)),
    ):
        with pytest.raises(ValueError, match=message):
            fit()
    with pytest.raises(ValueError, match=r"X\[2\]: expected a finite number, got nan"):
        Forecaster(window=3).fit(X[7])


def test_tensors_with_gradients_are_read():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    X = np.random.default_rng(0).standard_normal((12, 4, 2))
    y = np.arange(12) % 2
    make = lambda: SequenceClassifier(hidden_size=2, epochs=1, random_state=0)  # noqa: E731
    ours = make().fit(torch.tensor(X, requires_grad=True), torch.tensor(y)).predict_proba(torch.tensor(X))
    np.testing.assert_array_equal(ours, make().fit(X, y).predict_proba(X))


def ids(rng, n=40):
    """Words of padded sentences, some much more frequent."""
    x = np.zeros((n, 30), int)
    for row in x:
        row[: rng.integers(5, 30)] = 0
        words = rng.integers(5, 30)
        row[:words] = rng.zipf(1.5, words) % 200 + 1
    return x


@pytest.mark.parametrize("kind", ESTIMATORS[:2])
def test_ids_of_symbols_are_not_measurements_without_a_word(rng, kind):
    estimator, y = kind(hidden_size=2, epochs=1), np.arange(40) % 2
    for X in (ids(rng), list(ids(rng)), rng.integers(0, 4, (40, 30))):
        with pytest.warns(
            UserWarning, match=r"X: integers that look like symbol ids.*cylstm.Embedding.*X.astype\(float\)"
        ):
            estimator.fit(X, y)


def test_integer_measurements_are_read_without_a_word(rng):
    estimator, y = SequenceClassifier(hidden_size=2, epochs=1), np.arange(40) % 2
    for X in (
        (100 + 50 * np.sin(np.arange(1200) / 4)).astype(int).reshape(40, 30),
        np.abs(rng.integers(-5, 6, (40, 30)).cumsum(axis=1)),
        rng.integers(0, 2, (40, 30)),  # of two values one number says all
        rng.integers(0, 2**16, (40, 30)),
        rng.integers(-3, 4, (40, 30)),
        ids(rng).astype(float),
        rng.integers(0, 4, (40, 15, 2)),
    ):
        estimator.fit(X, y)


class Pressed:
    """Ctrl-C in the first minibatch of the n-th training."""

    def __init__(self, monkeypatch, n):
        learn, self.fits = Loop._train_on, []

        def pressed(loop, batch):
            if loop not in self.fits:
                self.fits.append(loop)
                if len(self.fits) == n:
                    signal.raise_signal(signal.SIGINT)
            learn(loop, batch)

        monkeypatch.setattr(Loop, "_train_on", pressed)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("make", [SequenceClassifier, SequenceRegressor, Forecaster])
def test_ctrl_c_ends_a_fit_with_an_exception(make, monkeypatch):
    settings = SERIES if make is Forecaster else SMALL
    X, y = np.random.default_rng(0).standard_normal((60, 9, 2)), np.arange(60) % 2
    arguments = (X[:, 0],) if make is Forecaster else (X, y)
    estimator = make(**settings | {"batch_size": 8})
    Pressed(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(*arguments)
    assert (estimator.history_.stopped, len(estimator.history_.steps["loss"])) == ("interrupted", 1)
    estimator.predict(arguments[0])
    Pressed(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        estimator.partial_fit(*arguments)
    assert estimator.history_.stopped == "interrupted"


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_search(monkeypatch):
    X = np.random.default_rng(0).standard_normal((30, 6, 2))
    search = GridSearchCV(SequenceRegressor(**SMALL | {"epochs": 2}), {"hidden_size": [2, 3]}, cv=3)
    pressed = Pressed(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, X.sum((1, 2)))
    assert len(pressed.fits) == 2


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_a_search_in_several_processes():
    code = """
import os, signal, threading
import numpy as np
from sklearn.model_selection import GridSearchCV
from cylstm.sklearn import SequenceRegressor
signal.signal(signal.SIGINT, signal.default_int_handler)
X = np.random.default_rng(0).standard_normal((30, 20, 3))
regressor = SequenceRegressor(epochs=10**6, random_state=0)
search = GridSearchCV(regressor, {"hidden_size": [16, 24]}, cv=4, n_jobs=2)
threading.Timer(4.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    search.fit(X, X.sum((1, 2)))
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "interrupted\n"


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_an_estimator_from_a_mapped_file_trains_on(kind, tmp_path):
    """As joblib gives it to workers: all its arrays are read-only."""
    estimator, given, new = problem(kind)
    estimator.fit(*given)
    joblib.dump(estimator, tmp_path / "estimator")
    mapped = joblib.load(tmp_path / "estimator", mmap_mode="r")
    ours, expected = (one.partial_fit(*given).predict(new) for one in (mapped, estimator))
    np.testing.assert_array_equal(ours, expected)
