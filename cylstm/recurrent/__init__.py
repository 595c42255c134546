"""Recurrent layers: cells, options, weights, buffers, the pass through a stack."""
