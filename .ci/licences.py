"""Checks what the lock file brings in: licences, and crates that must not be.

A licence expression is fulfilled when a choice of its terms is allowed.
"""

import json
import re
import subprocess
import sys

ALLOWED = {
    "Apache-2.0",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
}
# One TLS stack and no system library; and what is known to fall over.
BANNED = {
    "native-tls": "TLS is rustls'",
    "openssl": "TLS is rustls'",
    "openssl-sys": "TLS is rustls'",
    "aws-lc-rs": "ring is the one provider of the default build",
    "sonic-rs": "ends the process on deep nesting",
    "serde_yaml": "no longer kept",
    "reqwest": "hyper's client is the one that is used",
}
ONCE = {"rustls", "tokio-rustls", "hyper-rustls", "hyper", "http", "tokio", "rusqlite"}


def main():
    packages = metadata()
    wrong = []
    names = [package["name"] for package in packages]
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if package["name"] in BANNED:
            wrong.append(f"{name} is banned: {BANNED[package['name']]}")
        expression = package["license"]
        if not expression:
            wrong.append(f"{name} names no licence")
        elif not fulfilled(expression):
            wrong.append(f"{name}: {expression} is not allowed")
    for name in sorted(ONCE):
        if names.count(name) > 1:
            wrong.append(f"{name} is there {names.count(name)} times")
    for line in wrong:
        print(line)
    print(f"{len(packages)} packages, {len(wrong)} faults")
    print("advisories: not looked up, their database would come over the network")
    sys.exit(1 if wrong else 0)


def metadata():
    """All packages that the default build for this kind of machine uses."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    command += ["--filter-platform", "x86_64-unknown-linux-gnu"]
    found = json.loads(subprocess.check_output(command))
    used = {node["id"] for node in found["resolve"]["nodes"]}
    return [package for package in found["packages"] if package["id"] in used]


def fulfilled(expression):
    """Whether an SPDX expression can be met by the allowed licences."""
    # The older way to say OR.
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def choice():
        met = every()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = every() or met
        return met

    def every():
        met = term()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = term() and met
        return met

    def term():
        token = tokens.pop(0)
        if token == "(":
            met = choice()
            tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":
            # An exception gives more than the licence does.
            del tokens[:2]
        return token in ALLOWED

    met = choice()
    if tokens:
        raise ValueError(f"{expression}: {tokens} is left over")
    return met


if __name__ == "__main__":
    main()
