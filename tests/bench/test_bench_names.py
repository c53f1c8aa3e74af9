"""The names that the load generator uses are those that deployments really have."""

from __future__ import annotations

from toolkit.bench import contract
from toolkit.bench.records import Request, Sampling
from toolkit.repository.contract import load_contract


def test_inputs_and_outputs_are_in_the_public_contract() -> None:
    public = load_contract("public")
    known = frozenset(tensor.name for tensor in public.inputs)
    request = Request(
        1, "p", 8, 0.0, min_tokens=8, sampling=Sampling(temperature=1.0, top_k=2, top_p=0.5, seed=3)
    )
    sent = contract.inputs(request, True, known)
    assert {
        "text_input",
        "max_tokens",
        "min_tokens",
        "stream",
        "temperature",
        "top_k",
        "top_p",
        "return_perf_metrics",
    } <= set(sent)
    assert sent.get("seed", sent.get("random_seed")) == 3
    outputs = {tensor.name for tensor in public.outputs}
    assert {contract.TEXT_OUTPUT, *contract.USAGE_OUTPUTS} <= outputs
