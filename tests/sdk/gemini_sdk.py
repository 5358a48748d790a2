"""The `google-genai` package: generate_content, streamed or not, and models."""

import functools

from google import genai
from google.genai import errors, types

from harness import TOOL, Tokens, check, equal, raises


def client(session, key=None):
    return client_of(session.url, key or session.key)


# A client that nobody holds closes its connections while they are in use.
@functools.cache
def client_of(url, key):
    return genai.Client(
        api_key=key, http_options=types.HttpOptions(base_url=url, timeout=30_000)
    )


def tokens(usage):
    cached = usage.cached_content_token_count or 0
    return Tokens(
        usage.prompt_token_count - cached,
        usage.candidates_token_count or 0,
        cached,
        usage.thoughts_token_count or 0,
    )


def ask(session, name, model, text="Hi there", **rest):
    request_id, headers = session.headers(name)
    options = types.HttpOptions(headers=headers)
    config = types.GenerateContentConfig(http_options=options, **rest)
    return request_id, {"model": model, "contents": text, "config": config}


@check
def gemini_unary(session):
    request_id, arguments = ask(session, "gemini", "demo", "Grüezi, gemini")
    answer = client(session).models.generate_content(**arguments)
    equal(answer.text, "Grüezi, gemini")
    session.note(
        request_id,
        "gemini",
        "demo",
        tokens=tokens(answer.usage_metadata),
        finish="STOP",
    )


@check
def gemini_streamed(session):
    request_id, arguments = ask(session, "gemini-stream", "demo", "Grüezi, Strom")
    chunks = list(client(session).models.generate_content_stream(**arguments))
    equal("".join(chunk.text or "" for chunk in chunks), "Grüezi, Strom")
    session.note(
        request_id,
        "gemini",
        "demo",
        streamed=True,
        tokens=tokens(chunks[-1].usage_metadata),
        finish="STOP",
    )


@check
def gemini_tools_streamed(session):
    function = types.FunctionDeclaration(
        name="weather", description="of a city", parameters_json_schema=TOOL
    )
    tools = [types.Tool(function_declarations=[function])]
    request_id, arguments = ask(session, "gemini-tools", "demo-tools", tools=tools)
    chunks = list(client(session).models.generate_content_stream(**arguments))
    calls = [call for chunk in chunks for call in chunk.function_calls or []]
    equal([call.name for call in calls], ["weather"] * 2)
    session.note(
        request_id,
        "gemini",
        "demo-tools",
        streamed=True,
        tokens=tokens(chunks[-1].usage_metadata),
        finish="STOP",
        tools=2,
    )


@check
def gemini_thinking(session):
    request_id, arguments = ask(
        session,
        "gemini-thinking",
        "demo-thinking",
        thinking_config=types.ThinkingConfig(include_thoughts=True),
    )
    answer = client(session).models.generate_content(**arguments)
    parts = answer.candidates[0].content.parts
    equal([bool(part.thought) for part in parts], [True, False])
    session.note(
        request_id,
        "gemini",
        "demo-thinking",
        tokens=tokens(answer.usage_metadata),
        finish="STOP",
    )


@check
def gemini_fails_over(session):
    request_id, arguments = ask(session, "gemini-failover", "demo-failover")
    answer = client(session).models.generate_content(**arguments)
    session.note(
        request_id,
        "gemini",
        "demo-failover",
        tokens=tokens(answer.usage_metadata),
        finish="STOP",
        attempts=3,
    )


@check
def gemini_error_amid_a_stream_is_raised(session):
    model = "direct/simulated/any+chunks=6+error=content"
    request_id, arguments = ask(session, "gemini-broken", model)
    stream = client(session).models.generate_content_stream(**arguments)
    raises(errors.APIError, lambda: list(stream))
    session.note(
        request_id, "gemini", model, streamed=True, status="error", counted=False
    )


@check
def gemini_left_amid_a_stream(session):
    request_id, arguments = ask(session, "gemini-left", "demo-slow")
    stream = client(session).models.generate_content_stream(**arguments)
    for _ in zip(range(4), stream):
        pass
    stream.close()
    session.note(
        request_id,
        "gemini",
        "demo-slow",
        streamed=True,
        status="cancelled",
        counted=False,
    )


@check
def models_are_listed(session):
    names = [model.name for model in client(session).models.list()]
    equal(names[:2], ["models/demo", "models/demo-slow"])
    equal(client(session).models.get(model="demo-tools").name, "models/demo-tools")


@check
def a_wrong_key_is_a_client_error_401(session):
    _, arguments = ask(session, "gemini-wrong", "demo")
    wrong = client(session, "sk-wrong")
    error = raises(
        errors.ClientError, lambda: wrong.models.generate_content(**arguments)
    )
    equal((error.code, error.status), (401, "UNAUTHENTICATED"))


@check
def an_unknown_model_is_a_client_error_404(session):
    request_id, arguments = ask(session, "gemini-unknown", "no-such-model")
    error = raises(
        errors.ClientError,
        lambda: client(session).models.generate_content(**arguments),
    )
    equal((error.code, error.status), (404, "NOT_FOUND"))
    session.note(
        request_id,
        "gemini",
        "no-such-model",
        status="error",
        counted=False,
        attempts=None,
    )
