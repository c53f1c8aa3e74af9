"""Streamed answers, as the official client sees them: on a stand-in, or on a real deployment."""

from __future__ import annotations

import asyncio

import pytest

QUESTION = [{"role": "user", "content": "Name three colours of the rainbow."}]
PROMPT = "The colours of the rainbow are"


@pytest.fixture
def stream(client, target):
    """The chunks of a streamed chat completion of 12 tokens, unless said otherwise."""

    def stream(*, extra=None, **fields):
        fields.setdefault("max_tokens", 12)
        return list(
            client.chat.completions.create(
                model=target.model,
                messages=QUESTION,
                stream=True,
                extra_body={"ignore_eos": True} | (extra or {}),
                **fields,
            )
        )

    return stream


def text(chunks, index=0):
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index
    )


def test_the_first_chunk_says_who_speaks(stream):
    first = stream()[0]
    assert first.object == "chat.completion.chunk"
    assert first.choices[0].delta.role == "assistant"
    assert first.choices[0].finish_reason is None


def test_the_role_is_said_once(stream):
    assert [chunk.choices[0].delta.role for chunk in stream()].count("assistant") == 1


def test_the_last_chunk_says_why_it_ends(stream):
    chunks = stream()
    assert chunks[-1].choices[0].finish_reason == "length"
    assert chunks[-1].choices[0].delta.content is None
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])


def test_all_chunks_are_of_one_answer(stream, target):
    chunks = stream()
    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {
        (chunks[0].id, chunks[0].created, target.model)
    }


def test_a_stream_says_what_a_whole_answer_says(stream, client, target):
    whole = client.chat.completions.create(
        model=target.model,
        messages=QUESTION,
        max_tokens=12,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    assert text(stream(temperature=0)) == whole.choices[0].message.content


def test_text_comes_in_pieces(stream):
    pieces = [chunk for chunk in stream(max_tokens=40) if chunk.choices[0].delta.content]
    assert len(pieces) > 1


def test_usage_comes_last_when_asked_for(stream):
    chunks = stream(stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12
    assert all(chunk.usage is None and chunk.choices for chunk in chunks[:-1])


def test_no_usage_comes_unasked(stream):
    assert all(chunk.usage is None and chunk.choices for chunk in stream())


def test_several_answers_come_side_by_side(stream):
    chunks = stream(n=3, stream_options={"include_usage": True})
    for index in range(3):
        own = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert own[0].delta.role == "assistant"
        assert [c.finish_reason for c in own if c.finish_reason] == ["length"]
        assert text(chunks, index)
    assert chunks[-1].usage.completion_tokens == 36


def test_a_stop_text_is_never_shown(stream):
    whole = text(stream(temperature=0, max_tokens=24))
    stop = whole[len(whole) // 2 :][:5]
    chunks = stream(temperature=0, max_tokens=24, stop=[stop])
    assert text(chunks) == whole[: whole.index(stop)]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].choices[0].stop_reason == stop


def test_log_probabilities_come_with_their_text(stream):
    chunks = stream(logprobs=True)
    tokens = [
        token
        for chunk in chunks
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    data = b"".join(bytes(token.bytes) for token in tokens)
    assert data.decode(errors="replace") == text(chunks)
    assert all(token.logprob <= 0 for token in tokens)


def test_the_request_class_is_told_in_every_chunk(stream):
    assert {chunk.service_tier for chunk in stream(service_tier="batch")} == {"batch"}


def test_the_clients_own_accumulator_works(client, target):
    with client.chat.completions.stream(
        model=target.model, messages=QUESTION, max_tokens=12
    ) as stream:
        pieces = "".join(event.delta for event in stream if event.type == "content.delta")
    final = stream.current_completion_snapshot
    assert final.choices[0].message.content == pieces
    assert final.choices[0].finish_reason in ("stop", "length")


def test_a_stream_ends_with_done(client, target):
    with client.chat.completions.with_streaming_response.create(
        model=target.model, messages=QUESTION, max_tokens=3, stream=True
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-request-id"]
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


def test_a_client_may_leave_in_the_middle(client, target):
    for _ in range(5):
        answer = client.chat.completions.create(
            model=target.model, messages=QUESTION, max_tokens=500, stream=True
        )
        next(iter(answer))
        answer.close()
    again = client.chat.completions.create(model=target.model, messages=QUESTION, max_tokens=4)
    assert again.usage.completion_tokens >= 1


def test_the_asynchronous_client_streams(target):
    async def main():
        async with target.async_client() as client:
            answer = await client.chat.completions.create(
                model=target.model, messages=QUESTION, max_tokens=12, stream=True
            )
            return [chunk async for chunk in answer]

    chunks = asyncio.run(main())
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_streams_do_not_mix(target):
    async def one(client, number):
        answer = await client.chat.completions.create(
            model=target.model,
            messages=[{"role": "user", "content": f"Count from {number}."}],
            max_tokens=16,
            seed=number,
            stream=True,
            extra_body={"ignore_eos": True},
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in answer]
        assert len({chunk.id for chunk in chunks}) == 1
        assert chunks[-1].usage.completion_tokens == 16
        return chunks[0].id

    async def main():
        async with target.async_client() as client:
            return await asyncio.gather(*(one(client, number) for number in range(12)))

    assert len(set(asyncio.run(main()))) == 12


@pytest.fixture
def text_stream(client, target):
    def text_stream(**fields):
        fields.setdefault("max_tokens", 8)
        return list(
            client.completions.create(
                model=target.model, stream=True, extra_body={"ignore_eos": True}, **fields
            )
        )

    return text_stream


def test_texts_are_streamed_as_well(text_stream, client, target):
    chunks = text_stream(prompt=PROMPT, temperature=0)
    assert all(chunk.object == "text_completion" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    whole = client.completions.create(
        model=target.model,
        prompt=PROMPT,
        max_tokens=8,
        temperature=0,
        extra_body={"ignore_eos": True},
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text


def test_an_echo_comes_first(text_stream):
    chunks = text_stream(prompt=PROMPT, echo=True)
    assert chunks[0].choices[0].text.startswith(PROMPT)
    assert "".join(chunk.choices[0].text for chunk in chunks).count(PROMPT) == 1


def test_several_prompts_are_streamed_side_by_side(text_stream):
    chunks = text_stream(prompt=["One", "Two"], n=2, stream_options={"include_usage": True})
    ends = [c.index for chunk in chunks for c in chunk.choices if c.finish_reason]
    assert sorted(ends) == [0, 1, 2, 3]
    assert chunks[-1].usage.completion_tokens == 32


def test_log_probabilities_of_streamed_texts_keep_their_places(text_stream):
    chunks = text_stream(prompt=PROMPT, logprobs=0)
    whole = "".join(chunk.choices[0].text for chunk in chunks)
    found = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    tokens = [token for each in found for token in each.tokens]
    offsets = [offset for each in found for offset in each.text_offset]
    assert len(tokens) == len(offsets) == 8
    assert offsets == sorted(offsets)
    assert "".join(tokens) == whole or "\ufffd" in "".join(tokens)
