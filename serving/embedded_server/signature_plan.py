"""What a Predict request on one signature needs every time, made once.

Its place in the flow: each loaded version keeps its plans; predict.py looks them up.
"""

from __future__ import annotations

from serving.embedded_server.predict_wire import model_spec_field, output_key
from serving.embedded_server.run_plan import RunPlan
from serving.embedded_server.session import Session
from serving.protos import tfs_pb2


class SignaturePlan:
    """One signature with all its inputs and outputs.

    Attributes:
        input_aliases: its inputs' names, in the order of the run.
        run: what is fed and fetched.
        output_keys: its outputs' names, as the answer's bytes begin with them.
        model_spec: which version answered, as bytes of the answer.
    """

    def __init__(self, session: Session, *, signature_name: str, model: str, version: int) -> None:
        signature = session.signature_defs[signature_name]
        outputs = list(signature.outputs)
        # In the order of the tensors' names, as arrays are fed: one plan for a graph, whatever way leads to it.
        self.input_aliases = tuple(sorted(signature.inputs, key=lambda alias: signature.inputs[alias].name))
        self.run: RunPlan = session.plan(
            tuple(signature.inputs[alias].name for alias in self.input_aliases),
            tuple(signature.outputs[alias].name for alias in outputs),
        )
        self.output_keys = [output_key(alias) for alias in outputs]
        spec = tfs_pb2.ModelSpec(name=model, signature_name=signature_name)
        spec.version.value = version
        self.model_spec = model_spec_field(spec)


class SignaturePlans:
    """The plans of one version, by signature; made when they are first asked for."""

    def __init__(self, session: Session, *, model: str, version: int) -> None:
        self._session = session
        self._model = model
        self._version = version
        self._plans: dict[str, SignaturePlan] = {}

    def get(self, signature_name: str) -> SignaturePlan | None:
        """Return a signature's plan, or None where there is no such signature.

        Raises:
            StatusError: INVALID_ARGUMENT: it names tensors that the graph does not have.
        """
        plan = self._plans.get(signature_name)
        if plan is None and signature_name in self._session.signature_defs:
            plan = self._plans[signature_name] = SignaturePlan(
                self._session, signature_name=signature_name, model=self._model, version=self._version
            )
        return plan
