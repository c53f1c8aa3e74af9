"""``tensorrt_llm.executor.utils`` as far as the adapter uses it."""


class RequestError(RuntimeError):
    """The error of one request."""
