"""An executor that speaks JSON with nothing but Python's standard library. executors_test.go says what it is to do.

A task whose data is "finish" is done at once; any other runs until it is killed, as a child process. What was launched is
noted in the file "launched" of the sandbox, a line for each time. A message is sent back.
"""

import base64
import http.client
import json
import os
import re
import subprocess
import sys
import time
import uuid

HOST, PORT = os.environ["MESOS_AGENT_ENDPOINT"].rsplit(":", 1)
ME = {"framework_id": {"value": os.environ["MESOS_FRAMEWORK_ID"]}, "executor_id": {"value": os.environ["MESOS_EXECUTOR_ID"]}}
UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "secs": 1, "mins": 60, "hrs": 3600, "days": 86400, "weeks": 604800}

children = {}  # by task id
tasks = {}  # those of which no update was acknowledged, by id
updates = {}  # those that were not acknowledged, by uuid


def seconds(name, default):
    number, unit = re.fullmatch(r"([0-9.]+)([a-z]+)", os.environ.get(name, default)).groups()
    return float(number) * UNITS[unit]


def call(body):
    connection = http.client.HTTPConnection(HOST.strip("[]"), int(PORT), timeout=10)
    try:
        connection.request("POST", "/api/v1/executor", json.dumps({**ME, **body}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 202:
            print("refused:", answer.status, text, flush=True)
    except OSError as e:
        print("not delivered, to be told at the next subscription:", e, flush=True)
    finally:
        connection.close()


def update(task, state):
    status = {
        "task_id": {"value": task}, "state": state, "source": "SOURCE_EXECUTOR", "timestamp": time.time(),
        "uuid": base64.b64encode(uuid.uuid4().bytes).decode(),
    }
    updates[status["uuid"]] = {"status": status}
    call({"type": "UPDATE", "update": {"status": status}})


def launch(task):
    name = task["task_id"]["value"]
    with open(os.path.join(os.environ["MESOS_SANDBOX"], "launched"), "a") as f:
        f.write(name + "\n")
    tasks[name] = task
    if base64.b64decode(task.get("data", "")) == b"finish":
        update(name, "TASK_RUNNING")
        update(name, "TASK_FINISHED")
        return
    children[name] = subprocess.Popen(["sleep", "1000"])
    update(name, "TASK_RUNNING")


def handle(event):
    kind = event["type"]
    if kind == "LAUNCH":
        launch(event["launch"]["task"])
    elif kind == "LAUNCH_GROUP":
        for task in event["launch_group"]["task_group"]["tasks"]:
            launch(task)
    elif kind == "KILL":
        name = event["kill"]["task_id"]["value"]
        child = children.pop(name, None)
        if child is not None:
            child.kill()
            child.wait()
            update(name, "TASK_KILLED")
    elif kind == "ACKNOWLEDGED":
        tasks.pop(event["acknowledged"]["task_id"]["value"], None)
        updates.pop(event["acknowledged"]["uuid"], None)
    elif kind == "MESSAGE":
        call({"type": "MESSAGE", "message": {"data": event["message"]["data"]}})
    elif kind == "SHUTDOWN":
        for child in children.values():
            child.kill()
            child.wait()
        sys.exit(0)
    elif kind == "ERROR":
        print("error:", event["error"]["message"], flush=True)


def session():
    connection = http.client.HTTPConnection(HOST.strip("[]"), int(PORT))
    try:
        connection.request("POST", "/api/v1/executor", json.dumps({
            **ME, "type": "SUBSCRIBE",
            "subscribe": {"unacknowledged_tasks": list(tasks.values()), "unacknowledged_updates": list(updates.values())},
        }), {"Content-Type": "application/json", "Accept": "application/json"})
        stream = connection.getresponse()
        if stream.status != 200:
            print("not subscribed:", stream.status, stream.read(), flush=True)
            return False
        while True:
            length = stream.readline()
            if not length:
                return True
            handle(json.loads(stream.read(int(length))))
    except (OSError, http.client.HTTPException) as e:
        print("disconnected:", e, flush=True)
        return False
    finally:
        connection.close()


lost = time.monotonic()
while True:
    if session():
        lost = time.monotonic()
    if os.environ["MESOS_CHECKPOINT"] != "1":
        sys.exit(1)
    if time.monotonic() - lost > seconds("MESOS_RECOVERY_TIMEOUT", "15mins"):
        sys.exit(2)
    time.sleep(seconds("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2secs") / 4)
