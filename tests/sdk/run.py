"""Drives the official SDKs against `plexus demo`: run.py PATH/TO/plexus

Runs every check alone, then in two processes at once, then reads the usage
rows back and compares them with what the SDKs saw: one row for each request,
with the same tokens. The last line says how many passed and failed.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import CHECKS, Session  # noqa: E402

START_SECONDS = 20
ROWS_SECONDS = 15


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    # What somebody's shell says of the real services must not reach the tests.
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_")):
            del os.environ[name]
        elif name.lower().endswith("_proxy"):
            del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        demo, said = start(sys.argv[1], folder)
        try:
            url, key, admin = said["address"], said["key"], said["admin key"]
            results, asked = all_checks(url, key)
            results += rows(url, admin, asked)
        finally:
            stopped = stop(demo)
    results.append(("the demo stops when it is told to", stopped, 0.0))
    failed = [result for result in results if result[1]]
    for name, error, seconds in results:
        print(f"{'FAILED' if error else 'ok':6} {name} ({seconds:.2f} s)")
    for name, error, _ in failed:
        print(f"\n---- {name}\n{error.rstrip()}")
    print(f"\n{len(results) - len(failed)} passed, {len(failed)} failed")
    sys.exit(1 if failed else 0)


def start(binary, folder):
    """Starts the demo on a free port; what it says of itself."""
    demo = subprocess.Popen(
        [binary, "demo", "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": folder},
    )
    watchdog = threading.Timer(START_SECONDS, demo.kill)
    watchdog.start()
    said = {}
    for line in demo.stdout:
        for name in ("address", "key", "admin key", "models"):
            if line.startswith(f"  {name} "):
                said[name] = line.strip().removeprefix(name).strip()
        if line.startswith("Stop it with"):
            break
    watchdog.cancel()
    if "admin key" not in said:
        stop(demo)
        sys.exit("the demo did not start")
    threading.Thread(target=demo.stdout.read, daemon=True).start()
    return demo, said


def stop(demo):
    """Asks it to stop, as its user would; what went wrong, if anything did."""
    demo.send_signal(signal.SIGTERM)
    try:
        code = demo.wait(timeout=10)
    except subprocess.TimeoutExpired:
        demo.kill()
        demo.wait()
        return "it was still there ten seconds after SIGTERM"
    return None if code == 0 else f"it ended with {code}"


def all_checks(url, key):
    """Every check once alone and twice at once."""
    results, asked = session_of(url, key, "alone")
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        both = pool.starmap(
            session_of, [(url, key, "left"), (url, key, "right")], chunksize=1
        )
    for more_results, more_asked in both:
        results += more_results
        asked += more_asked
    return results, asked


def session_of(url, key, tag):
    """All checks in this process, under a tag of their own."""
    import anthropic_sdk  # noqa: F401
    import gemini_sdk  # noqa: F401
    import openai_sdk  # noqa: F401

    session = Session(url, f"{key}:{tag}", tag)
    session.run(CHECKS)
    return session.results, session.asked


def rows(url, admin, asked):
    """Compares the usage rows with what was asked, one result for each."""
    try:
        found = read_rows(url, admin, asked)
    except Exception as error:
        return [("usage rows", f"they can't be read: {error}", 0.0)]
    results = []
    by_id = {}
    for row in found:
        by_id.setdefault(row["clientRequestId"], []).append(row)
    for want in asked:
        mine = by_id.pop(want.request_id, [])
        error = differences(want, mine[0]) if len(mine) == 1 else None
        if len(mine) != 1:
            error = f"{len(mine)} rows instead of one"
        results.append((f"row of {want.request_id}", error, 0.0))
    unknown = "\n".join(f"{name}: {len(more)}" for name, more in by_id.items())
    results.append(("no row that nobody asked for", unknown or None, 0.0))
    return results


def read_rows(url, admin, asked):
    """All usage rows, once there are as many as wanted or time is up."""
    deadline = time.monotonic() + ROWS_SECONDS
    while True:
        request = urllib.request.Request(
            f"{url}/v0/management/usage?limit=10000", headers={"x-admin-key": admin}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                page = json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{error}: {error.read()[:300]!r}") from error
        if page["total"] >= len(asked) or time.monotonic() > deadline:
            return page["data"]
        time.sleep(0.1)


def differences(want, row):
    """How a row differs from what it should say; nothing if it doesn't."""
    wanted = {
        "incomingApiType": want.api,
        "incomingModelAlias": want.model,
        "isStreamed": want.streamed,
        "responseStatus": want.status,
        "attribution": want.request_id.split("-")[0],
        "apiKey": "demo",
    }
    if want.attempts is not None:
        wanted["attemptCount"] = want.attempts
    if want.finish is not None:
        wanted["finishReason"] = want.finish
    if want.tools is not None:
        wanted["toolCallsCount"] = want.tools
    if want.tokens is not None:
        wanted["tokensInput"] = want.tokens.input
        wanted["tokensOutput"] = want.tokens.output
        wanted["tokensCached"] = want.tokens.cached
        wanted["tokensReasoning"] = want.tokens.reasoning
    wrong = []
    for name, value in wanted.items():
        found = row[name] or 0 if name.startswith("tokens") else row[name]
        if found != value:
            wrong.append(f"{name}: found {row[name]!r}, wanted {value!r}")
    if want.tokens is None and want.counted:
        if not row["tokensInput"] or not row["tokensOutput"]:
            wrong.append("no tokens were counted")
    return "\n".join(wrong)


if __name__ == "__main__":
    main()
