"""Names of the parameters of a stack: PyTorch's, and those that the engine has for them."""

PYTORCH_KINDS = {  # by the engine's names
    "w_ih": "weight_ih",
    "w_hh": "weight_hh",
    "b_ih": "bias_ih",
    "b_hh": "bias_hh",
    "w_hr": "weight_hr",
}


def parameter_name(kind: str, layer: int, d: int) -> str:
    """PyTorch's name of a parameter of one layer and direction.

    >>> parameter_name("weight_ih", 1, 1)
    'weight_ih_l1_reverse'
    """
    return f"{kind}_l{layer}{'_reverse' if d else ''}"
