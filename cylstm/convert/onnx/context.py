"""The state of reading an ONNX graph: the chain of layers so far, the values and the sizes of their axes."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

from cylstm.convert._common import ConversionError
from cylstm.convert.onnx.chain import Chain
from cylstm.convert.onnx.values import (
    ROW,
    Atom,
    Group,
    Row,
    Rows,
    Steps,
    UnrolledLayer,
    UnrolledStep,
    Value,
    shape,
    without_ones,
)


@dataclasses.dataclass(frozen=True)
class GraphFacts:
    """What is known about a graph before its nodes are read.

    Attributes
    ----------
    opset : int
        Version of the default operator set.
    exported_by_torch : bool
        Whether the file names PyTorch as its producer.
    weights : frozenset of str
        Names of initializers and of inputs whose values the caller gives.
    aliases : dict of str to str
        For each output of an Identity node, the value that it is a copy of.
    uses : Counter of str
        How many nodes read each value, copies counted as the value itself.
    """

    opset: int
    exported_by_torch: bool
    weights: frozenset[str]
    aliases: dict[str, str]
    uses: Counter[str]

    @classmethod
    def of(cls, model: Any, constants: Iterable[str]) -> "GraphFacts":
        """The facts about the graph of an `onnx.ModelProto`."""
        graph, aliases = model.graph, dict[str, str]()
        for node in graph.node:
            if node.op_type == "Identity" and len(node.input) == 1:
                original = aliases.get(node.input[0], node.input[0])
                aliases |= dict.fromkeys(node.output, original)
        nodes = [node for node in graph.node if node.op_type != "Identity"]
        return cls(
            max([1, *(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))]),
            model.producer_name == "pytorch",
            frozenset(tensor.name for tensor in graph.initializer) | frozenset(constants),
            aliases,
            Counter(aliases.get(name, name) for node in nodes for name in node.input),
        )

    def original(self, name: str) -> str:
        """The name of the value that a name stands for, which may be a copy."""
        return self.aliases.get(name, name)


@dataclasses.dataclass
class Context:
    """State that the operators of a graph read and change, in the order of its nodes.

    Attributes
    ----------
    graph : GraphFacts
        What does not change.
    chain : Chain
        The layers so far.
    values : dict of str to Value, UnrolledStep or None
        Of every name so far; None for an output that cylstm does not compute.
    sizes : dict of Atom to int
        Of every atom.
    outer : tuple of Group
        The axes of x other than features.
    features : tuple of Atom
        Atoms of the features at the chain's end.
    open_features : Atom, optional
        Features of x, if the file leaves their size open and no layer has set it.
    open_axes : set of Group
        Axes of inputs whose sizes the file leaves open.
    reads_indices : bool
        Whether x holds indices.
    time, batch : tuple of Atom, or None
        Groups of these axes, once a recurrent node has told them.
    lengths : list
        The rows of lengths that each recurrent node reads; None for whole sequences.
    initial_states : dict of str to list of Row
        Rows of inputs that recurrent nodes start from, in the nodes' order.
    state_units : dict of int to Atom
        The units of states, by their number.
    unrolled : UnrolledLayer, optional
        The unrolled layer whose steps are being read.
    has_unrolled : bool
        Whether an unrolled layer is complete.
    """

    graph: GraphFacts
    chain: Chain
    values: dict[str, Value | UnrolledStep | None] = dataclasses.field(default_factory=dict)
    sizes: dict[Atom, int] = dataclasses.field(default_factory=dict)
    outer: tuple[Group, ...] = ()
    features: Group = ()
    open_features: Atom | None = None
    open_axes: set[Group] = dataclasses.field(default_factory=set)
    reads_indices: bool = False
    time: Group | None = None
    batch: Group | None = None
    lengths: list[tuple[Row, ...] | None] = dataclasses.field(default_factory=list)
    initial_states: dict[str, list[Row]] = dataclasses.field(default_factory=lambda: {"h": [], "c": []})
    state_units: dict[int, Atom] = dataclasses.field(default_factory=dict)
    unrolled: UnrolledLayer | None = None
    has_unrolled: bool = False

    def layer_input(self, value: Value | None, rank: int | None = None, size: int | None = None) -> Steps:
        """A value as x of the next layer: the chain's end, with features last and whole.

        `size` is the number of features that the layer reads.
        """
        if isinstance(value, Rows):
            value = self.pool_states(value)
        if not isinstance(value, Steps):
            raise ConversionError("expected to read x")
        if value.version != self.chain.version:
            raise ConversionError("reads what another layer has read already; cylstm's layers are a chain")
        if size is not None and self.open_features is not None and self.open_features in self.features:
            self.sizes[self.open_features] = size
            self.open_features = None
            self.features = without_ones((self.features,), self.sizes)[0]
            value = Steps(without_ones(value.groups, self.sizes), value.version)
        groups = value.groups
        if not groups or groups[-1] != self.features or (rank is not None and len(groups) != rank):
            raise ConversionError(f"expected features in the last of {rank or 'the'} axes")
        if size is not None and (have := shape(groups[-1:], self.sizes)[0]) != size:
            raise ConversionError(f"expected {size} features, got {have}")
        if any(len(group) > 1 for group in groups[:-1]) and rank is not None:
            raise ConversionError("expected steps and batch in axes of their own")
        return value

    def pool_states(self, value: Rows) -> Steps:
        """Last states of the chain's last layer, as its pooled output."""
        last = self.chain.records[-1] if self.chain.records else None
        if last is None or last.after != self.chain.version or "states" not in last.arguments:
            raise ConversionError("reads states of a layer that is not the last one before it")
        D = last.arguments["states"]
        assert last.directions is not None
        assert last.units is not None
        wanted = tuple((last.states[0], d) for d in range(D))
        if value.rows != wanted or last.arguments["options"].get("reverse"):
            raise ConversionError("expected h of all directions at the end, of a layer that is not reversed")
        H = last.arguments["hidden_size"]
        names = {ROW: last.directions, self.units_of(H): last.units}
        groups = tuple(tuple(names.get(atom, atom) for atom in group) for group in value.groups)
        if groups not in ((self.batch or (), self.features), (self.features,)):
            raise ConversionError("expected the directions of h side by side")
        self.chain.append(last.name, "Pooling", how="ends" if D == 2 else "last")
        return Steps(groups, self.chain.version)

    def set_features(self, *atoms: tuple[Atom, int]) -> Group:
        """Make these atoms, with their sizes, the features at the chain's end."""
        self.sizes |= dict(atoms)
        self.features = without_ones((tuple(atom for atom, _ in atoms),), self.sizes)[0]
        return self.features

    def units_of(self, size: int) -> Atom:
        """The atom of the units of states, the same for all layers of this size."""
        atom = self.state_units.setdefault(size, Atom(f"{size} units"))
        self.sizes[atom] = size
        return atom

    def sizes_for(self, value: Value | None) -> dict[Atom, int]:
        """Sizes of the atoms in a value's axes, its rows of states included."""
        return {**self.sizes, ROW: len(value.rows)} if isinstance(value, Rows) else self.sizes

    def regrouped(self, value: Steps | Rows, groups: tuple[Group, ...]) -> Steps | Rows:
        """A value with other axes of the same atoms."""
        if isinstance(value, Rows):
            return Rows(value.rows, without_ones(groups, self.sizes_for(value)))
        return Steps(groups, value.version)
