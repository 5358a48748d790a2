"""Each SDK against each provider's protocol: pairs.py PATH/TO/plexus [NODE FOLDER]

Starts a simulated provider and a gateway in front of it that knows it under four
names, one for each protocol. Every SDK asks every one of them, streamed and
not, for text, for tools, for reasoning and tools; what the SDK's own accumulator
makes of the stream must be what it makes of the whole answer, and the same from
every provider. With a folder in which the JavaScript SDKs are installed, these
are driven too.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
KEY = "sk-plexus-pairs"
UPSTREAMS = ["chat", "responses", "messages", "gemini"]
KINDS = {
    "text": "simulated+tokens_in=50+tokens_out=30",
    "tools": "simulated+tools=2+tokens_in=50+tokens_out=30",
    "thinking": "simulated+reasoning+tools=1+tokens_in=50+tokens_out=30+reasoning_tokens=10",
    "length": "simulated+finish=length+tokens_in=50+tokens_out=30",
}
CONFIG = """
adminKey: admin-pairs
server: {{ host: 127.0.0.1, port: {gateway} }}
catalogue: {{ enabled: false }}
providers:
  chat: {{ api_base_url: {{ chat: "http://127.0.0.1:{provider}/v1" }}, api_key: sk-p }}
  responses: {{ api_base_url: {{ responses: "http://127.0.0.1:{provider}/v1" }}, api_key: sk-p }}
  messages: {{ api_base_url: {{ messages: "http://127.0.0.1:{provider}/v1" }}, api_key: sk-p }}
  gemini: {{ api_base_url: {{ gemini: "http://127.0.0.1:{provider}/v1beta" }}, api_key: sk-p }}
keys:
  pairs: {{ secret: {key} }}
"""
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Where"}},
    "required": ["city"],
}
QUESTION = "What is the weather in Bern and in Basel?"


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_")):
            del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        processes, url = start(sys.argv[1], folder)
        try:
            failed = run(url)
            if len(sys.argv) == 3:
                failed += javascript(url, sys.argv[2])
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=20)
    sys.exit(1 if failed else 0)


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(binary, folder):
    provider, gateway = free_port(), free_port()
    file = os.path.join(folder, "plexus.yaml")
    with open(file, "w", encoding="utf-8") as out:
        out.write(CONFIG.format(provider=provider, gateway=gateway, key=KEY))
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    env = {**os.environ, "DATA_DIR": folder, "LOG_LEVEL": "error"}
    processes = [
        subprocess.Popen([binary, "simulate", "--port", str(provider)], **quiet, env=env),
        subprocess.Popen([binary, "serve", "--config", file], **quiet, env=env),
    ]
    url = f"http://127.0.0.1:{gateway}"
    for path in (f"{url}/health", f"http://127.0.0.1:{provider}/v1/models"):
        wait_for(path)
    return processes, url


def wait_for(url):
    deadline = time.monotonic() + 20
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).read()
            return
        except OSError as error:
            if getattr(error, "code", None) is not None:
                return
            if time.monotonic() > deadline:
                sys.exit(f"{url} does not answer: {error}")
            time.sleep(0.05)


def seen(text, reasoning, calls, finish, tokens):
    """What an answer says, in a form that all SDKs can be brought into."""
    return {
        "text": text or "",
        "reasoning": reasoning or "",
        "calls": [(name, json.dumps(args, sort_keys=True)) for name, args in calls],
        "finish": finish,
        "tokens": tokens,
    }


def openai_chat(url, model, stream):
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60)
    ask = {
        "model": model,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": QUESTION},
        ],
        "tools": [
            {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
        ],
        "reasoning_effort": "medium",
    }
    if stream:
        options = {"include_usage": True}
        with client.chat.completions.stream(**ask, stream_options=options) as events:
            try:
                answer = events.get_final_completion()
            except openai.LengthFinishReasonError as error:
                # Its accumulator raises, with what it has.
                answer = error.completion
    else:
        answer = client.chat.completions.create(**ask)
    choice = answer.choices[0]
    calls = [
        (call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls or []
    ]
    reasoning = getattr(choice.message, "reasoning_content", None)
    tokens = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    return seen(choice.message.content, reasoning, calls, choice.finish_reason, tokens)


def openai_responses(url, model, stream):
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60)
    ask = {
        "model": model,
        "instructions": "Be brief.",
        "input": QUESTION,
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}],
        "reasoning": {"effort": "medium", "summary": "auto"},
    }
    if stream:
        with client.responses.stream(**ask) as events:
            # Its `get_final_response` knows completed answers only.
            last = ("response.completed", "response.incomplete")
            answer = [event.response for event in events if event.type in last][-1]
    else:
        answer = client.responses.create(**ask)
    calls, reasoning = [], ""
    for item in answer.output:
        if item.type == "function_call":
            calls.append((item.name, json.loads(item.arguments)))
        elif item.type == "reasoning":
            reasoning += "".join(part.text for part in item.summary)
    details = answer.incomplete_details
    finish = details.reason if details else ("tool_calls" if calls else "stop")
    finish = {"max_output_tokens": "length"}.get(finish, finish)
    tokens = (answer.usage.input_tokens, answer.usage.output_tokens)
    return seen(answer.output_text, reasoning, calls, finish, tokens)


def anthropic_messages(url, model, stream):
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0, timeout=60)
    ask = {
        "model": model,
        "max_tokens": 4000,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": QUESTION}],
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
        "thinking": {"type": "adaptive"},
    }
    if stream:
        with client.messages.stream(**ask) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**ask)
    text = "".join(block.text for block in answer.content if block.type == "text")
    reasoning = "".join(b.thinking for b in answer.content if b.type == "thinking")
    calls = [(b.name, b.input) for b in answer.content if b.type == "tool_use"]
    finish = {"end_turn": "stop", "tool_use": "tool_calls", "max_tokens": "length"}
    usage = answer.usage
    given = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    given += usage.cache_creation_input_tokens or 0
    return seen(text, reasoning, calls, finish[answer.stop_reason], (given, usage.output_tokens))


def google_genai(url, model, stream):
    from google import genai
    from google.genai import types

    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=url, timeout=60000))
    declaration = types.FunctionDeclaration(name="weather", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        system_instruction="Be brief.",
        tools=[types.Tool(function_declarations=[declaration])],
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=2000),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    ask = {"model": model, "contents": QUESTION, "config": config}
    if stream:
        chunks = list(client.models.generate_content_stream(**ask))
    else:
        chunks = [client.models.generate_content(**ask)]
    candidates = [c for chunk in chunks for c in chunk.candidates or []]
    parts = [p for c in candidates if c.content for p in c.content.parts or []]
    text = "".join(p.text for p in parts if p.text and not p.thought)
    reasoning = "".join(p.text for p in parts if p.text and p.thought)
    calls = [(p.function_call.name, p.function_call.args) for p in parts if p.function_call]
    finish = [c.finish_reason.name for c in candidates if c.finish_reason][-1]
    finish = {"STOP": "tool_calls" if calls else "stop", "MAX_TOKENS": "length"}[finish]
    usage = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata][-1]
    made = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return seen(text, reasoning, calls, finish, (usage.prompt_token_count, made))


CLIENTS = {
    "chat": openai_chat,
    "responses": openai_responses,
    "messages": anthropic_messages,
    "gemini": google_genai,
}


def run(url):
    """All pairs; how many checks failed."""
    results = []
    wanted = {}
    for kind, client, upstream in itertools.product(KINDS, CLIENTS, UPSTREAMS):
        model = f"direct/{upstream}/{KINDS[kind]}"
        for stream in (False, True):
            name = f"{client} to {upstream}: {kind}, {'streamed' if stream else 'whole'}"
            try:
                found = CLIENTS[client](url, model, stream)
                first = wanted.setdefault(kind, (name, found))
                results.append((name, differences(first, found, kind)))
            except Exception:
                results.append((name, traceback.format_exc(limit=-5)))
    return told(results)


def differences(first, found, kind):
    """What is not as in the first answer of its kind."""
    name, wanted = first
    for field, value in wanted.items():
        if found[field] != value:
            return f"{field}: {found[field]!r}, but {value!r} in '{name}'"
    empty = {"tools": "calls", "thinking": "reasoning"}.get(kind, "text")
    return None if found[empty] else f"no {empty}: {found}"


def told(results):
    failed = [(name, error) for name, error in results if error]
    for name, error in results:
        print(f"{'FAILED' if error else 'ok':6} {name}")
    for name, error in failed:
        print(f"\n---- {name}\n{error.rstrip()}")
    print(f"\n{len(results) - len(failed)} passed, {len(failed)} failed")
    return len(failed)


def javascript(url, folder):
    """The same with the JavaScript SDKs."""
    models = {
        f"{kind} {upstream}": f"direct/{upstream}/{KINDS[kind]}"
        for kind in KINDS
        for upstream in UPSTREAMS
    }
    ran = subprocess.run(
        ["node", os.path.join(folder, "pairs.mjs"), url, KEY],
        input=json.dumps({"models": models, "schema": SCHEMA, "question": QUESTION}),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if ran.returncode != 0:
        return told([("the JavaScript SDKs", ran.stderr or "they failed")])
    results, wanted = [], {}
    for line in ran.stdout.splitlines():
        told_of = json.loads(line)
        if "error" in told_of:
            results.append((told_of["name"], told_of["error"]))
            continue
        kind, found = told_of["kind"], told_of["seen"]
        found["calls"] = [
            (name, json.dumps(args, sort_keys=True)) for name, args in found["calls"]
        ]
        found["tokens"] = tuple(found["tokens"])
        first = wanted.setdefault(kind, (told_of["name"], found))
        results.append((told_of["name"], differences(first, found, kind)))
    return told(results)


if __name__ == "__main__":
    main()
