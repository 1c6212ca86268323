"""The guard is for good, so every test tries it in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = str(Path(__file__).parents[2] / "scripts")


def guarded(program: str) -> subprocess.CompletedProcess[str]:
    start = f"import sys; sys.path.insert(0, {SCRIPTS!r})\n"
    start += "import socket\nfrom bettersynth.runtime.network import forbid_network\n"
    start += "forbid_network('rule score_neural 0007')\n"
    # Offline switches, which other tests set for good, would make the hub's client give up before it tries.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    command = [sys.executable, "-c", start + program]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("program", "host"),
    [
        ("socket.create_connection(('192.0.2.1', 443))", "192.0.2.1"),
        ("socket.socket().connect_ex(('192.0.2.1', 443))", "192.0.2.1"),
        ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 443))", "2001:db8::1"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))", "192.0.2.1"),
        ("import requests; requests.get('https://models.example/clip')", "models.example"),
        ("import urllib.request; urllib.request.urlopen('http://models.example')", "models.example"),
        (
            "import threading; thread = threading.Thread(target=socket.create_connection, args=[('192.0.2.1', 443)])\n"
            "thread.start()",
            "192.0.2.1",
        ),
    ],
)
def test_an_attempt_names_host_and_job(program, host):
    result = guarded(program)
    assert f"NetworkError: rule score_neural 0007 tried to reach {host}" in result.stderr
    assert "make stage" in result.stderr


def test_the_hub_client_gives_up_at_once():
    result = guarded("import huggingface_hub; huggingface_hub.hf_hub_download('someone/clip', 'config.json')")
    assert "NetworkError: rule score_neural 0007 tried to reach huggingface.co" in result.stderr


def test_a_swallowed_attempt_is_logged():
    program = "import logging; logging.basicConfig()\n"
    program += "try: socket.create_connection(('models.example', 443))\nexcept Exception: pass"
    result = guarded(program)
    assert result.returncode == 0
    assert "rule score_neural 0007 tried to reach models.example" in result.stderr


def test_this_machine_can_be_reached(tmp_path):
    program = f"""
for family, address in ((socket.AF_INET, ('127.0.0.1', 0)), (socket.AF_UNIX, {str(tmp_path / "s")!r})):
    server = socket.socket(family)
    server.bind(address)
    server.listen()
    socket.socket(family).connect(server.getsockname())
socket.getaddrinfo(None, 0)
print('reached')
"""
    result = guarded(program)
    assert result.stdout == "reached\n", result.stderr
