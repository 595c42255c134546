"""The steps that Keras masks in a model, and how its layers use the mask."""

from typing import Any

from cylstm.convert._common import ConversionError
from cylstm.layers.masked import Masked

RECURRENT = ("LSTM", "GRU", "SimpleRNN", "Bidirectional")


class Mask:
    """The mask of a model, from the layer that makes it to those that use it."""

    def __init__(self) -> None:
        self._value: float | None = None  # of masked steps; None if no layer makes a mask
        self._active = False  # whether the next layer gets it
        self._used = False
        self._repeats = True

    def add_layer(self, where: str, kind: str, a: dict[str, Any], *, first: bool) -> None:
        """Update the mask for the next layer.

        Raises
        ------
        ConversionError
            If the layer uses masked steps in a way without an equivalent in cylstm.
        """
        if kind == "Masking":
            if not first:
                raise ConversionError(f"{where}: expected a Masking layer in front of all others")
            self._value, self._active, self._used = float(a["mask_value"]), True, True  # it writes zeros
            self._repeats = False
        elif kind == "Embedding" and a.get("mask_zero"):
            self._value, self._active = 0.0, True
        elif self._active and kind in RECURRENT:
            self._recurrent(where, kind, a)
        elif self._active and kind == "GlobalAveragePooling1D":
            self._used, self._active = True, False
        elif self._active and kind == "GlobalMaxPooling1D":
            if self._used:
                raise ConversionError(
                    f"{where}: includes masked steps in the maximum, which has no equivalent in cylstm; use "
                    "GlobalAveragePooling1D, or a recurrent layer without return_sequences"
                )
            self._active = False
        elif self._active and kind == "Softmax":
            raise ConversionError(
                f"{where}: uses the mask over features; make it Activation('softmax') to read it"
            )

    def _recurrent(self, where: str, kind: str, a: dict[str, Any]) -> None:
        inner = a["layer"]["config"] if kind == "Bidirectional" else a
        zeros = bool(inner.get("zero_output_for_mask"))
        self._used, self._active = True, bool(inner["return_sequences"])
        if not self._active and zeros and kind != "Bidirectional":
            raise ConversionError(
                f"{where}: zero_output_for_mask=True with return_sequences=False has no equivalent in cylstm"
            )
        self._repeats = kind != "Bidirectional" and not zeros

    def options(self) -> dict[str, Any]:
        """Arguments of the model, whose class depends on whether steps are masked."""
        if self._value is None or not self._used:
            return {}
        return {"kind": Masked, "value": self._value, "repeats": self._repeats}
