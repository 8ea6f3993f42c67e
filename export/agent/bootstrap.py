"""Receives the agent on a board and becomes it: its folder's name, its size and its lease are given, it comes on stdin.

Runs as text of `python3 -I -c`, so that it says in one line what an old or bare Python lacks. Nothing is left behind
where the agent does not arrive whole.
"""

import os
import shutil
import sys
import tempfile


def receive(name, size):
    folder = os.path.join(tempfile.gettempdir(), name)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        status = os.lstat(folder)
        if status.st_uid != os.geteuid() or status.st_mode & 0o170777 != 0o040700:
            fail(f"{folder} is there already and is not the agent's own folder")
    content = b""
    while len(content) < size:
        chunk = os.read(0, size - len(content))
        if not chunk:
            break
        content += chunk
    agent = os.path.join(folder, "agent.pyz")
    try:
        if len(content) < size:
            fail("the agent did not arrive whole", folder)
        with open(agent + ".new", "wb") as file:
            file.write(content)
        os.replace(agent + ".new", agent)
    except OSError as error:
        fail("the agent cannot be written to {}: {}".format(folder, error.strerror), folder)
    return agent, folder


def fail(reason, folder=None):
    if folder is not None and not os.path.exists(os.path.join(folder, "agent.pyz")):
        shutil.rmtree(folder, ignore_errors=True)
    sys.stderr.write("edgemtl: {}\n".format(reason))
    sys.exit(3)


if sys.version_info < (3, 8):
    fail("Python {}.{} is too old, the agent needs 3.8 or newer".format(*sys.version_info[:2]))
try:
    agent, folder = receive(sys.argv[1], int(sys.argv[2]))
except OSError as error:
    fail("no temporary folder can be made: {}".format(error))
os.execv(sys.executable, [sys.executable, agent, "relay", folder, sys.argv[3]])
