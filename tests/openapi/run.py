"""Lets schemathesis loose on `plexus demo`, with the document that it serves:
run.py PATH/TO/plexus PATH/TO/schemathesis

Requests are made from the document, within it and beside it, the same in every
run. No answer may be a server's error or of another shape than the document says.
Bounded by time. Who may open what is tests/access.rs's business: here the wrong
keys would only be slowed down.
"""

import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "sdk"))

from run import start, stop  # noqa: E402

SECONDS = 60
CHECKS = "not_a_server_error,content_type_conformance,response_schema_conformance"
# What goes on for ever, what takes away the keys that the rest needs.
LEFT_OUT = [
    "/v0/system/logs/stream",
    "/v0/management/events",
    "/v0/management/config",
    "/v0/management/restart",
    "/v0/management/restore",
    # What they asked could not be had: that is told as a server's error.
    "/v0/management/providers/fetch-models",
    "/v0/management/test",
    "/v0/management/models/huggingface/{id}",
    "/v0/management/models/metadata/resolve",
    "/v0/management/pi/models",
    "/v0/management/pi/providers",
]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        demo, said = start(sys.argv[1], folder)
        url = said["address"]
        command = [
            sys.argv[2], "run", url + "/.well-known/plexus/openapi.json",
            "--header", "x-admin-key: " + said["admin key"],
            "--checks", CHECKS, "--phases", "examples,coverage", "--seed", "1",
            "--max-time", str(SECONDS), "--request-timeout", "20", "--warnings", "off",
            "--exclude-tag", "inference", "--exclude-tag", "models",
        ]
        for path in LEFT_OUT:
            command += ["--exclude-path", path]
        try:
            done = subprocess.run(command, cwd=folder, timeout=SECONDS * 4, check=False)
        finally:
            stopped = stop(demo)
    if stopped:
        sys.exit(f"the demo did not stop: {stopped}")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
