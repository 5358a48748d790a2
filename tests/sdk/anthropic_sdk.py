"""The `anthropic` package: messages and models."""

import anthropic

from harness import TOOL, Tokens, check, equal, raises


def client(session, key=None):
    return anthropic.Anthropic(
        base_url=session.url, api_key=key or session.key, max_retries=0, timeout=30
    )


def tokens(usage):
    details = getattr(usage, "output_tokens_details", None)
    reasoning = getattr(details, "thinking_tokens", None) or 0
    return Tokens(
        usage.input_tokens,
        usage.output_tokens - reasoning,
        usage.cache_read_input_tokens or 0,
        reasoning,
    )


def ask(session, name, model, text="Hi there", **rest):
    request_id, headers = session.headers(name)
    arguments = {
        "model": model,
        "max_tokens": 2000,
        "messages": [{"role": "user", "content": text}],
        "extra_headers": headers,
        **rest,
    }
    return request_id, arguments


WEATHER = [{"name": "weather", "description": "of a city", "input_schema": TOOL}]


@check
def messages_unary(session):
    request_id, arguments = ask(session, "messages", "demo", "Grüezi, messages")
    answer = client(session).messages.create(**arguments)
    equal(answer.content[0].text, "Grüezi, messages")
    session.note(
        request_id,
        "messages",
        "demo",
        tokens=tokens(answer.usage),
        finish=answer.stop_reason,
    )


@check
def messages_streamed(session):
    request_id, arguments = ask(session, "messages-stream", "demo", "Grüezi, Strom")
    with client(session).messages.stream(**arguments) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    equal(text, "Grüezi, Strom")
    session.note(
        request_id,
        "messages",
        "demo",
        streamed=True,
        tokens=tokens(answer.usage),
        finish=answer.stop_reason,
    )


@check
def messages_tools(session):
    request_id, arguments = ask(session, "messages-tools", "demo-tools", tools=WEATHER)
    answer = client(session).messages.create(**arguments)
    calls = [block for block in answer.content if block.type == "tool_use"]
    equal([(call.name, type(call.input)) for call in calls], [("weather", dict)] * 2)
    equal(answer.stop_reason, "tool_use")
    session.note(
        request_id,
        "messages",
        "demo-tools",
        tokens=tokens(answer.usage),
        finish="tool_use",
        tools=2,
    )


@check
def messages_tools_streamed(session):
    request_id, arguments = ask(
        session, "messages-tools-stream", "demo-tools", tools=WEATHER
    )
    with client(session).messages.stream(**arguments) as stream:
        answer = stream.get_final_message()
    calls = [block for block in answer.content if block.type == "tool_use"]
    equal([(call.name, type(call.input)) for call in calls], [("weather", dict)] * 2)
    session.note(
        request_id,
        "messages",
        "demo-tools",
        streamed=True,
        tokens=tokens(answer.usage),
        finish="tool_use",
        tools=2,
    )


@check
def messages_thinking_streamed(session):
    request_id, arguments = ask(
        session,
        "messages-thinking",
        "demo-thinking",
        thinking={"type": "enabled", "budget_tokens": 1024},
    )
    with client(session).messages.stream(**arguments) as stream:
        answer = stream.get_final_message()
    equal([block.type for block in answer.content], ["thinking", "text"])
    if not answer.content[0].signature:
        raise AssertionError("the thinking is not signed")
    session.note(
        request_id,
        "messages",
        "demo-thinking",
        streamed=True,
        tokens=tokens(answer.usage),
        finish=answer.stop_reason,
    )


@check
def messages_fail_over_streamed(session):
    request_id, arguments = ask(session, "messages-failover", "demo-failover")
    with client(session).messages.stream(**arguments) as stream:
        answer = stream.get_final_message()
    equal(answer.stop_reason, "end_turn")
    session.note(
        request_id,
        "messages",
        "demo-failover",
        streamed=True,
        tokens=tokens(answer.usage),
        finish="end_turn",
        attempts=3,
    )


@check
def messages_error_amid_a_stream_is_raised(session):
    model = "direct/simulated/any+chunks=6+error=content"
    request_id, arguments = ask(session, "messages-broken", model)
    stream = client(session).messages.create(stream=True, **arguments)
    raises(anthropic.APIError, lambda: list(stream))
    session.note(
        request_id, "messages", model, streamed=True, status="error", counted=False
    )


@check
def messages_left_amid_a_stream(session):
    request_id, arguments = ask(session, "messages-left", "demo-slow")
    stream = client(session).messages.create(stream=True, **arguments)
    for _ in zip(range(5), stream):
        pass
    stream.close()
    session.note(
        request_id,
        "messages",
        "demo-slow",
        streamed=True,
        status="cancelled",
        counted=False,
    )


@check
def models_are_listed(session):
    names = [model.id for model in client(session).models.list()]
    equal(names[:2], ["demo", "demo-slow"])
    equal(client(session).models.retrieve("demo-tools").id, "demo-tools")


@check
def a_wrong_key_is_an_authentication_error(session):
    _, arguments = ask(session, "messages-wrong", "demo")
    wrong = client(session, "sk-wrong")
    raises(anthropic.AuthenticationError, lambda: wrong.messages.create(**arguments))


@check
def an_unknown_model_is_not_found(session):
    request_id, arguments = ask(session, "messages-unknown", "no-such-model")
    error = raises(
        anthropic.NotFoundError, lambda: client(session).messages.create(**arguments)
    )
    equal(error.body["error"]["type"], "not_found_error")
    session.note(
        request_id,
        "messages",
        "no-such-model",
        status="error",
        counted=False,
        attempts=None,
    )
