"""The `openai` package: chat completions, responses, embeddings, models."""

import json

import openai

from harness import TOOL, Tokens, check, equal, raises

FUNCTION = {"name": "weather", "description": "Weather of a city", "parameters": TOOL}


def client(session, key=None):
    return openai.OpenAI(
        base_url=f"{session.url}/v1",
        api_key=key or session.key,
        max_retries=0,
        timeout=30,
    )


def chat_tokens(usage):
    reasoning = usage.completion_tokens_details.reasoning_tokens or 0
    cached = usage.prompt_tokens_details.cached_tokens or 0
    return Tokens(
        usage.prompt_tokens - cached,
        usage.completion_tokens - reasoning,
        cached,
        reasoning,
    )


def responses_tokens(usage):
    reasoning = usage.output_tokens_details.reasoning_tokens
    cached = usage.input_tokens_details.cached_tokens
    return Tokens(
        usage.input_tokens - cached, usage.output_tokens - reasoning, cached, reasoning
    )


def say(text):
    return [{"role": "user", "content": text}]


def chat(session, name, model, **rest):
    request_id, headers = session.headers(name)
    answer = client(session).chat.completions.create(
        model=model, extra_headers=headers, **{"messages": say("Hi there"), **rest}
    )
    return request_id, answer


@check
def chat_unary(session):
    request_id, answer = chat(session, "chat", "demo", messages=say("Grüezi, chat"))
    equal(answer.choices[0].message.content, "Grüezi, chat")
    equal(answer.choices[0].finish_reason, "stop")
    session.note(
        request_id, "chat", "demo", tokens=chat_tokens(answer.usage), finish="stop"
    )


@check
def chat_streamed_with_usage(session):
    request_id, stream = chat(
        session,
        "chat-stream",
        "demo",
        messages=say("Grüezi, Strom"),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(
        chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices
    )
    equal(text, "Grüezi, Strom")
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    equal(len(usages), 1, "usage chunks")
    session.note(
        request_id,
        "chat",
        "demo",
        streamed=True,
        tokens=chat_tokens(usages[0]),
        finish="stop",
    )


@check
def chat_streamed_without_usage_is_counted_all_the_same(session):
    request_id, stream = chat(session, "chat-uncounted", "demo", stream=True)
    chunks = list(stream)
    equal([chunk.usage for chunk in chunks if chunk.usage], [], "usage nobody asked for")
    equal([chunk for chunk in chunks if not chunk.choices], [], "chunks without choices")
    session.note(request_id, "chat", "demo", streamed=True, finish="stop")


@check
def chat_tools(session):
    tools = [{"type": "function", "function": FUNCTION}]
    request_id, answer = chat(session, "chat-tools", "demo-tools", tools=tools)
    calls = answer.choices[0].message.tool_calls
    equal([call.function.name for call in calls], ["weather"] * 2)
    for call in calls:
        json.loads(call.function.arguments)
    equal(len({call.id for call in calls}), 2, "distinct ids")
    session.note(
        request_id,
        "chat",
        "demo-tools",
        tokens=chat_tokens(answer.usage),
        finish="tool_calls",
        tools=2,
    )


@check
def chat_tools_streamed(session):
    tools = [{"type": "function", "function": FUNCTION}]
    request_id, headers = session.headers("chat-tools-stream")
    with client(session).chat.completions.stream(
        model="demo-tools",
        messages=say("Weather?"),
        tools=tools,
        stream_options={"include_usage": True},
        extra_headers=headers,
    ) as stream:
        answer = stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls
    equal([call.function.name for call in calls], ["weather"] * 2)
    for call in calls:
        json.loads(call.function.arguments)
    session.note(
        request_id,
        "chat",
        "demo-tools",
        streamed=True,
        tokens=chat_tokens(answer.usage),
        finish="tool_calls",
        tools=2,
    )


@check
def chat_thinking(session):
    request_id, answer = chat(session, "chat-thinking", "demo-thinking")
    tokens = chat_tokens(answer.usage)
    if not tokens.reasoning:
        raise AssertionError("no reasoning was counted")
    session.note(request_id, "chat", "demo-thinking", tokens=tokens, finish="stop")


@check
def chat_fails_over(session):
    request_id, answer = chat(session, "chat-failover", "demo-failover")
    equal(answer.choices[0].finish_reason, "stop")
    session.note(
        request_id,
        "chat",
        "demo-failover",
        tokens=chat_tokens(answer.usage),
        finish="stop",
        attempts=3,
    )


@check
def chat_fails_over_streamed(session):
    request_id, stream = chat(session, "chat-failover-stream", "demo-failover", stream=True)
    chunks = list(stream)
    equal(len({chunk.id for chunk in chunks}), 1, "answers in one stream")
    equal(chunks[-1].choices[0].finish_reason, "stop")
    session.note(
        request_id, "chat", "demo-failover", streamed=True, finish="stop", attempts=3
    )


@check
def chat_error_amid_a_stream_is_raised(session):
    model = "direct/simulated/any+chunks=6+error=content"
    request_id, stream = chat(session, "chat-broken", model, stream=True)
    raises(openai.APIError, lambda: list(stream))
    session.note(
        request_id, "chat", model, streamed=True, status="error", counted=False
    )


@check
def chat_left_amid_a_stream(session):
    request_id, stream = chat(session, "chat-left", "demo-slow", stream=True)
    for _ in zip(range(4), stream):
        pass
    stream.close()
    session.note(
        request_id,
        "chat",
        "demo-slow",
        streamed=True,
        status="cancelled",
        counted=False,
    )


@check
def responses_unary(session):
    request_id, headers = session.headers("responses")
    answer = client(session).responses.create(
        model="demo", input="Grüezi, Antwort", extra_headers=headers
    )
    equal(answer.output_text, "Grüezi, Antwort")
    equal(answer.status, "completed")
    session.note(
        request_id, "responses", "demo", tokens=responses_tokens(answer.usage)
    )


@check
def responses_streamed(session):
    request_id, headers = session.headers("responses-stream")
    events = list(
        client(session).responses.create(
            model="demo", input="Grüezi, Ereignis", stream=True, extra_headers=headers
        )
    )
    text = "".join(
        event.delta for event in events if event.type == "response.output_text.delta"
    )
    equal(text, "Grüezi, Ereignis")
    equal(events[-1].type, "response.completed")
    numbers = [event.sequence_number for event in events]
    equal(numbers, list(range(len(events))), "sequence numbers")
    session.note(
        request_id,
        "responses",
        "demo",
        streamed=True,
        tokens=responses_tokens(events[-1].response.usage),
    )


@check
def responses_tools_streamed(session):
    request_id, headers = session.headers("responses-tools")
    with client(session).responses.stream(
        model="demo-tools",
        input="Weather?",
        tools=[{"type": "function", "strict": False, **FUNCTION}],
        extra_headers=headers,
    ) as stream:
        answer = stream.get_final_response()
    calls = [item for item in answer.output if item.type == "function_call"]
    equal([call.name for call in calls], ["weather"] * 2)
    for call in calls:
        json.loads(call.arguments)
    session.note(
        request_id,
        "responses",
        "demo-tools",
        streamed=True,
        tokens=responses_tokens(answer.usage),
        tools=2,
    )


@check
def responses_thinking(session):
    request_id, headers = session.headers("responses-thinking")
    answer = client(session).responses.create(
        model="demo-thinking", input="Why?", extra_headers=headers
    )
    equal([item.type for item in answer.output], ["reasoning", "message"])
    session.note(
        request_id, "responses", "demo-thinking", tokens=responses_tokens(answer.usage)
    )


@check
def responses_left_amid_a_stream(session):
    request_id, headers = session.headers("responses-left")
    stream = client(session).responses.create(
        model="demo-slow", input="Slowly", stream=True, extra_headers=headers
    )
    for _ in zip(range(8), stream):
        pass
    stream.close()
    session.note(
        request_id,
        "responses",
        "demo-slow",
        streamed=True,
        status="cancelled",
        counted=False,
    )


@check
def embeddings(session):
    request_id, headers = session.headers("embeddings")
    answer = client(session).embeddings.create(
        model="demo-embedding", input=["one", "two"], extra_headers=headers
    )
    equal([item.index for item in answer.data], [0, 1])
    for item in answer.data:
        if not all(isinstance(number, float) for number in item.embedding):
            raise AssertionError("an embedding is a list of numbers")
    session.note(
        request_id,
        "embeddings",
        "demo-embedding",
        tokens=Tokens(answer.usage.prompt_tokens, 0),
    )


@check
def models_are_listed(session):
    names = [model.id for model in client(session).models.list()]
    equal(names[:2], ["demo", "demo-slow"])
    equal(client(session).models.retrieve("demo-tools").id, "demo-tools")


@check
def a_wrong_key_is_an_authentication_error(session):
    wrong = client(session, "sk-wrong")
    raises(
        openai.AuthenticationError,
        lambda: wrong.chat.completions.create(model="demo", messages=say("x")),
    )
    raises(
        openai.AuthenticationError,
        lambda: wrong.responses.create(model="demo", input="x"),
    )


@check
def an_unknown_model_is_not_found(session):
    error = raises(
        openai.NotFoundError, lambda: chat(session, "chat-unknown", "no-such-model")
    )
    equal(error.code, "model_not_found")
    request_id = f"{session.tag}-{next(session._numbers) - 1}-chat-unknown"
    session.note(
        request_id,
        "chat",
        "no-such-model",
        status="error",
        counted=False,
        attempts=None,
    )


@check
def a_bad_field_is_a_bad_request(session):
    request_id, headers = session.headers("chat-bad")
    error = raises(
        openai.BadRequestError,
        lambda: client(session).chat.completions.create(
            model="demo",
            messages=say("x"),
            extra_body={"stream": "yes"},
            extra_headers=headers,
        ),
    )
    equal(error.param, "stream")
    session.note(
        request_id, "chat", None, status="error", counted=False, attempts=None
    )
