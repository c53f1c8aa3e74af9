"""Checks of what the model answers: contract, text, streams, stop words, isolation."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.repository.contract import load_contract
from toolkit.serving import probe
from toolkit.serving.validate.check import Check, Context, Failed, Skipped
from toolkit.serving.validate.client import Answer, wire_type

GOLDEN = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n",
    "List three colours of the rainbow:",
)
_TOKENS = 16
_OWN_BEGINNING = 4  # characters that tell whose answer it is


def _ready(context: Context) -> str:
    client = context.client
    if not probe.ready(client.endpoints, client.model, 10.0):
        raise Failed(f"{client.endpoints.http_url} does not report {client.model} ready")
    return client.endpoints.http_url


def _contract(context: Context) -> str:
    contract = load_contract("public")
    found_inputs, found_outputs = context.client.metadata()
    wrong = []
    for kind, wanted, found in (
        ("input", contract.inputs, found_inputs),
        ("output", contract.outputs, found_outputs),
    ):
        for tensor in wanted:
            dtype = found.get(tensor.name)
            if dtype is None:
                wrong.append(f"{kind} {tensor.name} is missing")
            elif dtype != wire_type(tensor.dtype):
                wrong.append(f"{kind} {tensor.name} is {dtype}, not {wire_type(tensor.dtype)}")
    if wrong:
        raise Failed("; ".join(wrong))
    return f"{len(contract.inputs)} inputs, {len(contract.outputs)} outputs"


def _golden(context: Context) -> str:
    for prompt in GOLDEN:
        first, second = (context.ask(prompt, _TOKENS).text for _ in range(2))
        if not first.strip():
            raise Failed(f"the prompt {prompt!r} gave no text")
        if first != second:
            raise Failed(f"the prompt {prompt!r} gave {first!r}, then {second!r}")
    return f"{len(GOLDEN)} prompts twice"


def _greedy(context: Context) -> str:
    if not context.references or context.tokenize is None:
        raise Skipped("no reference outputs of the checkpoint were given")
    equal = total = 0
    worst = ""
    for reference in context.references:
        served = context.ask(reference.prompt, len(reference.tokens)).text
        tokens = context.tokenize(served)
        same = _common(tokens, reference.tokens)
        equal += same
        total += len(reference.tokens)
        if same < len(reference.tokens) and not worst:
            worst = (
                f"; {reference.prompt[:40]!r} differs at token {same}: served {served!r}, "
                f"checkpoint {reference.text!r}"
            )
    agreement = equal / max(1, total)
    line = f"{agreement:.1%} of {total} tokens before the first difference{worst}"
    if agreement < context.minimum_agreement:
        raise Failed(f"{line}; at least {context.minimum_agreement:.0%} are required")
    return line


def _streaming(context: Context) -> str:
    most = 0
    for prompt in GOLDEN[:2]:
        streamed = context.ask(prompt, _TOKENS)
        whole = context.ask(prompt, _TOKENS, stream=False)
        _one_end(streamed)
        _one_end(whole)
        if streamed.text != whole.text:
            raise Failed(
                f"{prompt!r} streams {streamed.text!r} but answers {whole.text!r} in one piece"
            )
        if len(whole.pieces) != 1:
            raise Failed(f"stream=false gave {len(whole.pieces)} responses instead of one")
        most = max(most, len(streamed.pieces))
    if most < 2:
        raise Failed("every streamed answer came in one piece")
    return f"up to {most} pieces an answer"


def _one_end(answer: Answer) -> None:
    if sum(answer.finals) != 1 or not answer.finals[-1]:
        raise Failed(f"the final flag is not on the last response alone: {answer.finals}")
    if "finish_reason" not in answer.outputs:
        raise Failed("the last response has no finish_reason")


def _http(context: Context) -> str:
    client = context.client
    url = f"{client.endpoints.http_url}/v2/models/{client.model}/generate"
    body = {"text_input": GOLDEN[0], "max_tokens": _TOKENS}
    status, content = probe.post(url, body, 60.0)
    if status != 200:
        raise Failed(f"generate answered {status}: {content.decode(errors='replace')[:200]}")
    import json

    over_http = json.loads(content).get("text_output")
    over_grpc = context.ask(GOLDEN[0], _TOKENS).text
    if over_http != over_grpc:
        raise Failed(f"HTTP gave {over_http!r}, gRPC {over_grpc!r}")
    return "the same text as over gRPC"


def _isolation(context: Context) -> str:
    limit = min(16, max(2, context.deployment.engine.limits.max_batch_size))
    prompts = list(GOLDEN)
    prompts += [f"Chapter {number}. {GOLDEN[number % len(GOLDEN)]}" for number in range(limit)]
    prompts = prompts[:limit]
    alone = [context.ask(prompt, _TOKENS).text for prompt in prompts]
    together = context.client.ask_all(prompts, _TOKENS)
    different = 0
    for prompt, own, answer in zip(prompts, alone, together, strict=True):
        if answer.error is not None:
            raise Failed(f"{prompt!r} was refused among {limit}: {answer.error}")
        if answer.text == own:
            continue
        different += 1
        foreign = answer.text in alone or answer.text[:_OWN_BEGINNING] != own[:_OWN_BEGINNING]
        if foreign or different > context.numeric_share * limit:
            raise Failed(f"{prompt!r} gives {own!r} alone, {answer.text!r} among {limit} at once")
    return f"{limit} prompts at once, {limit - different} answers equal to those alone"


def _stop_words(context: Context) -> str:
    for prompt in GOLDEN:
        text = context.ask(prompt, _TOKENS).text
        word = _word_inside(text)
        if word is None:
            continue
        stopped = context.ask(prompt, _TOKENS, stop_words=[word])
        expected = text[: text.index(word)]
        if stopped.text != expected:
            raise Failed(f"stop word {word!r}: got {stopped.text!r}, expected {expected!r}")
        if stopped.outputs.get("finish_reason") != "stop":
            raise Failed(
                f"stop word {word!r}: finish_reason is {stopped.outputs.get('finish_reason')!r}"
            )
        return f"ended before {word!r}, as it should"
    raise Skipped("no golden answer has a word in its middle that could stop it")


def _word_inside(text: str) -> str | None:
    words = text.split()
    for word in words[1:-1]:
        if len(word) > 2 and text.index(word) > 0:
            return word
    return None


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    pairs = zip(left, right, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


CHECKS = (
    Check(
        "readiness",
        "the server and the deployment's model report ready",
        "see `toolkit logs`",
        _ready,
    ),
    Check(
        "tensor contract",
        "inputs and outputs have the names and types that clients rely on",
        "render the repository again with this version: toolkit build",
        _contract,
    ),
    Check(
        "golden prompts",
        "prompts are answered with text, the same at each time",
        "greedy decoding must be deterministic; try engine.kv_cache.reuse: false to see whether "
        "cached blocks are wrong",
        _golden,
    ),
    Check(
        "greedy agreement",
        "the server decodes as the checkpoint does",
        "compare the compiled engine with the checkpoint: toolkit build verifies each stage",
        _greedy,
    ),
    Check(
        "streaming",
        "streamed pieces join to the unstreamed answer; the final flag comes once, at the end",
        "look for tokens that are detokenized one by one, and for a model that is not decoupled",
        _streaming,
    ),
    Check(
        "http",
        "the generate endpoint gives the same answer as gRPC",
        "look for a proxy between, or an HTTP address of another server",
        _http,
    ),
    Check(
        "isolation",
        "requests in one batch do not change each other's answers",
        "requests share state in the engine: report it, and set max_batch_size: 1 meanwhile",
        _isolation,
    ),
    Check(
        "stop words",
        "a stop word ends the text right before itself",
        "stop words have to be matched on text, across token borders",
        _stop_words,
    ),
)
