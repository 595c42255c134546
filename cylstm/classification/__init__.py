"""Classification of sequences: sequences and names of classes in, names out."""

from cylstm.classification.classifier import Classifier

__all__ = ["Classifier"]
