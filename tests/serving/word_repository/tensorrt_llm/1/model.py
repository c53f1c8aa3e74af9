"""A small model that streams words; special prompts make it misbehave. For tests only."""

import os
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        del args
        fault = os.environ.get("WORDS_FAULT", "")
        scale = float(os.environ["TOOLKIT_KV_CACHE_SCALE"])
        if fault == "load":
            raise ValueError("the weights are of another model")
        if fault == "memory" and scale > 0.6:
            raise MemoryError(f"no room for {scale:g} of the KV cache")

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self._serve, args=(request,), daemon=True).start()

    def _serve(self, request):
        sender = request.get_response_sender()
        prompt = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0].decode()
        count = int(pb_utils.get_input_tensor_by_name(request, "max_tokens").as_numpy()[0])
        pause = 0.05 if prompt.startswith("slow") else 0.0
        for number in range(count):
            if sender.is_cancelled():
                break
            word = f"{prompt}{number} ".encode()
            sender.send(pb_utils.InferenceResponse([_text(word)]))
            time.sleep(pause)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _text(value):
    return pb_utils.Tensor("text_output", np.array([value], dtype=np.object_))
