"""A small model that speaks the public contract and streams words. For tests only.

Its words follow from the prompt alone. The file named by WORDS_FAULTS may hold the name of a
fault, read anew for each request, so that every check of the validation can be seen to fail.
"""

import os
import random
import signal
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
BATCH = int(os.environ.get("WORDS_BATCH", "4"))
QUEUE = int(os.environ.get("WORDS_QUEUE", "8"))
MAX_INPUT = int(os.environ.get("WORDS_MAX_INPUT", "256"))
FAMILIES = {
    "nv_trt_llm_request_metrics": ("request_type", ("active", "scheduled", "waiting")),
    "nv_trt_llm_kv_cache_block_metrics": ("kv_cache_block_type", ("max", "used")),
    "nv_trt_llm_general_metrics": ("general_type", ("iteration_counter",)),
}


class TritonPythonModel:
    def initialize(self, args):
        fault = os.environ.get("WORDS_FAULT", "")
        scale = float(os.environ["TOOLKIT_KV_CACHE_SCALE"])
        if fault == "load":
            raise ValueError("the weights are of another model")
        if fault == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "memory" and scale > 0.6:
            raise MemoryError(f"no room for {scale:g} of the KV cache")
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(BATCH)
        self._prompts = []
        self._running = self._waiting = self._steps = 0
        self._seen = set()
        self._families, self._gauges = [], {}
        if fault != "metrics":
            self._make_gauges(args["model_name"])
            self._count()

    def finalize(self):
        if os.environ.get("WORDS_FAULT") == "wedged":
            time.sleep(300)

    def execute(self, requests):
        for request in requests:
            request = Request(request)
            problem = _problem(request)
            with self._lock:
                full = self._running + self._waiting >= BATCH + QUEUE
                if not problem and not full:
                    self._waiting += 1
            if problem:
                request.refuse(problem, pb_utils.TritonError.INVALID_ARG)
            elif full and request.fault == "hopeless-queue":
                request.refuse("no", pb_utils.TritonError.INVALID_ARG)
            elif full:
                request.refuse("queue is full, retry later", pb_utils.TritonError.UNAVAILABLE)
            else:
                threading.Thread(target=self._serve, args=(request,), daemon=True).start()

    def _serve(self, request):
        while not self._slots.acquire(timeout=0.05):
            if request.cancelled():
                self._count(waiting=-1)
                return request.refuse("request cancelled", pb_utils.TritonError.CANCELLED)
        self._count(running=1, waiting=-1)
        with self._lock:
            self._prompts.append(request.prompt)
        try:
            self._answer(request)
        finally:
            with self._lock:
                self._prompts.remove(request.prompt)
            self._slots.release()
            self._count(running=-1)
        return None

    def _answer(self, request):
        cached = request.prompt in self._seen and request.fault != "no-reuse"
        self._seen.add(request.prompt)
        text, words, reason = "", 0, "length"
        while words < request.count:
            if request.cancelled():
                return request.refuse("request cancelled", pb_utils.TritonError.CANCELLED)
            word = self._word(request, words)
            words += 1
            self._count(steps=1)
            time.sleep(0.05 if request.prompt.startswith("slow") else 0.004)
            stopped = [each for each in request.stops if each in text + word]
            if stopped:
                end = (text + word).index(stopped[0])
                end += len(stopped[0]) if request.fault == "keep-stop-word" else 0
                word, reason = (text + word)[:end][len(text) :], "stop"
            text += word
            if request.stream and reason != "stop" and words < request.count:
                request.send(word)
            if reason == "stop":
                break
        if request.fault == "short-whole" and not request.stream:
            text = text[:-2]
        last = word if request.stream else text
        return request.finish(last, reason, words, cached)

    def _word(self, request, number):
        prompt, fault = request.prompt, request.fault
        if fault == "leak":
            with self._lock:
                prompt = self._prompts[0]
        if fault == "random":
            return f"{random.randrange(1000, 9999)} "
        if fault == "silent":
            return " "
        if prompt.startswith("slow"):
            return f"{prompt}{number} "
        return f"{1000 + zlib.crc32(prompt.encode()) % 5000 + number} "

    def _make_gauges(self, model):
        for name, (label, kinds) in FAMILIES.items():
            family = pb_utils.MetricFamily(
                name=name, description="of a test", kind=pb_utils.MetricFamily.GAUGE
            )
            self._families.append(family)
            for kind in kinds:
                self._gauges[kind] = family.Metric(labels={"model": model, label: kind})

    def _count(self, running=0, waiting=0, steps=0):
        with self._lock:
            self._running += running
            self._waiting += waiting
            self._steps += steps
            for name, gauge in self._gauges.items():
                value = {
                    "active": self._running + self._waiting,
                    "scheduled": self._running,
                    "waiting": self._waiting,
                    "iteration_counter": self._steps,
                    "max": 100,
                    "used": self._running,
                }[name]
                gauge.set(value)


class Request:
    def __init__(self, request):
        self._sender = request.get_response_sender()
        self.given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        self.fault = _fault()
        self.prompt = self.given["text_input"].reshape(-1)[0].decode()
        self.count = int(self._one("max_tokens", 32))
        self.stream = bool(self._one("stream", False)) and self.fault != "never-streams"
        stops = self.given.get("stop_words", np.array([], dtype=np.object_)).reshape(-1)
        self.stops = [each.decode() for each in stops]
        self.count += 1 if self.fault == "one-more" else 0

    def _one(self, name, default):
        array = self.given.get(name)
        return default if array is None else array.reshape(-1)[0]

    def cancelled(self):
        return self.fault != "deaf" and self._sender.is_cancelled()

    def send(self, text):
        self._sender.send(pb_utils.InferenceResponse([_text(text)]))

    def finish(self, text, reason, words, cached):
        tokens = len(self.prompt.split())
        outputs = [
            _text(text),
            _bytes("finish_reason", reason),
            _int("num_input_tokens", tokens),
            _int("num_output_tokens", words),
            _int("num_cached_tokens", tokens if cached else 0),
            _int("total_draft_tokens", 0 if self.fault == "no-drafts" else words),
            _int("total_accepted_draft_tokens", words // 2),
        ]
        if self.fault == "no-reason":
            del outputs[1]
        if self.fault == "no-usage":
            del outputs[2:5]
        self._sender.send(pb_utils.InferenceResponse(outputs), flags=FINAL)

    def refuse(self, message, code):
        error = pb_utils.TritonError(message, code)
        self._sender.send(pb_utils.InferenceResponse(error=error), flags=FINAL)


def _fault():
    path = Path(os.environ.get("WORDS_FAULTS", "/nonexistent"))
    return path.read_text().strip() if path.exists() else ""


def _problem(request):
    if request.fault == "accepts-anything":
        return ""
    if not request.prompt:
        return "text_input: is empty"
    if len(request.prompt.split()) > MAX_INPUT and request.fault != "no-limit":
        if request.fault == "other-refusal":
            return "the engine is not itself today"
        return f"text_input: is longer than {MAX_INPUT} tokens"
    if request.count < 1:
        return "max_tokens: must be at least 1"
    if np.isnan(request.given.get("temperature", np.zeros(1))).any():
        return "temperature: must be finite" if request.fault != "unnamed" else "bad request"
    return ""


def _text(value):
    return pb_utils.Tensor("text_output", np.array([value.encode()], dtype=np.object_))


def _bytes(name, value):
    return pb_utils.Tensor(name, np.array([[value.encode()]], dtype=np.object_))


def _int(name, value):
    return pb_utils.Tensor(name, np.array([[value]], dtype=np.int32))
