"""Takes marathon-python, as Debian has it, through all of its methods against a real cluster.

Arguments: the Marathon's URL, the command of a task that serves HTTP at $PORT0, the name and the value of a variable that this
command needs, and user and password where there are some. It exits with 0 once everything was as it should be.
"""

import atexit
import http.server
import inspect
import json
import logging
import os
import queue
import shutil
import sys
import tempfile
import threading
import time

from marathon import MarathonClient
from marathon.exceptions import ConflictError, MarathonHttpError, NoResponseError, NotFoundError
from marathon.models import MarathonApp, MarathonConstraint, MarathonGroup, MarathonHealthCheck
from marathon.models.app import MarathonUnreachableStrategy, MarathonUpgradeStrategy, PortDefinition, ReadinessCheck
from marathon.models.events import MarathonDeploymentSuccess, MarathonStatusUpdateEvent

URL, COMMAND, VARIABLE, VALUE = sys.argv[1:5]
AUTH = tuple(sys.argv[5:7]) or (None, None)
METHODS = {name for name, _ in inspect.getmembers(MarathonClient, inspect.isfunction) if not name.startswith("_")}
called = set()
# Tasks wait for this file before they serve, so that what is to be seen while they are deployed can be looked at in peace.
GATE = os.path.join(tempfile.mkdtemp(), "open")
atexit.register(shutil.rmtree, os.path.dirname(GATE))
logging.getLogger("marathon").setLevel(logging.CRITICAL)  # it tells of each refusal, and many are wanted


class Client(MarathonClient):
    """The library's, which notes what was called of it."""

    def __getattribute__(self, name):
        if name in METHODS:
            called.add(name)
        return super().__getattribute__(name)


# The first server of the list is never there: the library goes on to the next one.
c = Client(["http://127.0.0.1:9", URL], *AUTH)


def check(condition, *why):
    if not condition:
        raise AssertionError(" ".join(str(w) for w in why))


def eventually(what, f, limit=30):
    deadline = time.monotonic() + limit
    while True:
        got = f()
        if got:
            return got
        check(time.monotonic() < deadline, "not in time:", what, "-", got)
        time.sleep(0.05)


def refused(kind, status, f, *args, **kwargs):
    try:
        f(*args, **kwargs)
    except kind as e:
        check(e.status_code == status, f.__name__, "is refused with", e.status_code, e)
        return e
    raise AssertionError(f"{f.__name__}{args} is not refused")


class Stream:
    """Reads an event stream in the background."""

    def __init__(self, **kwargs):
        self.events, self.seen, self.ended = queue.Queue(), [], None
        self.thread = threading.Thread(target=self.run, kwargs=kwargs, daemon=True)
        self.thread.start()

    def run(self, **kwargs):
        try:
            for e in c.event_stream(**kwargs):
                self.events.put(e)
        except Exception as e:  # pylint: disable=broad-except
            self.ended = e

    def until(self, what, f, limit=30):
        """Returns the first event, of those not looked at yet, for which f holds."""
        deadline = time.monotonic() + limit
        while True:
            try:
                e = self.events.get(timeout=max(0.01, min(1, deadline - time.monotonic())))
            except queue.Empty:
                # It ends once the leader has stepped down, and at nothing else.
                check(self.ended is None, "the stream has ended:", repr(self.ended))
                check(time.monotonic() < deadline, "no event that", what, "- it saw last", [e.event_type for e in self.seen[-30:]])
                continue
            self.seen.append(e)
            if f(e):
                return e

    def deployed(self, answer):
        """Waits for the end of what an answer says has begun."""
        i = answer["deploymentId"] if isinstance(answer, dict) else answer.deployments[0].id
        self.until(f"ends {i}", lambda e: e.event_type == "deployment_success" and e.id == i)


def ids(app_id):
    return sorted(t.id for t in c.list_tasks(app_id))


def definition(**kwargs):
    return MarathonApp(cmd=f"until test -e {GATE}; do sleep 0.1; done; {COMMAND}", env={VARIABLE: VALUE}, cpus=0.1, mem=32, backoff_seconds=1,
                       port_definitions=[PortDefinition(port=0, protocol="tcp", name="http")], **kwargs)


def sleeper(app_id, **kwargs):
    return MarathonApp(id=app_id, cmd="exec sleep 1000", cpus=0.01, mem=16, **kwargs)


def about_itself():
    eventually("it is a framework", lambda: c.get_info().framework_id)
    info = c.get_info()
    check(info.name == "marathon" and info.elected, "info", info)
    check(info.http_config.http_port == int(URL.rsplit(":", 1)[1]), "HTTP", info.http_config)
    check(info.leader == c.get_leader()["leader"] == URL.split("//")[1], "leader", info.leader)
    check(c.ping() == b'"pong"', "ping", c.ping())
    check("gauges" in c.get_metrics(), "metrics")


def apps(events):
    app = c.create_app("/tour/web", definition(
        instances=2, labels={"tier": "front", "team": "a"}, constraints=[MarathonConstraint("hostname", "GROUP_BY")],
        health_checks=[MarathonHealthCheck(protocol="MESOS_HTTP", path="/", port_index=0, grace_period_seconds=20, interval_seconds=1,
                                           timeout_seconds=5, max_consecutive_failures=3, delay_seconds=0)],
        readiness_checks=[ReadinessCheck(name="ready", protocol="HTTP", path="/", port_name="http", interval_seconds=2,
                                         timeout_seconds=1, http_status_codes_for_ready=[200], preserve_last_response=True)],
        upgrade_strategy=MarathonUpgradeStrategy(minimum_health_capacity=1, maximum_over_capacity=1), kill_selection="OLDEST_FIRST",
        unreachable_strategy=MarathonUnreachableStrategy(inactive_after_seconds=60, expunge_after_seconds=120),
        task_kill_grace_period_seconds=2))
    check(app and app.id == "/tour/web" and app.tasks_running == 0, "created", app)
    # As long as it deploys it is locked.
    e = refused(ConflictError, 409, c.update_app, "/tour/web", MarathonApp(instances=5))
    check("locked" in e.error_message, e)
    running = [d for d in c.list_deployments() if d.id == app.deployments[0].id][0]
    check(running.affected_apps == ["/tour/web"] and running.total_steps == len(running.steps) == 2, running)
    with open(GATE, "w", encoding="utf-8"):
        pass
    info = events.until("tells of a step", lambda e: e.event_type == "deployment_info")
    check(info.plan.id == running.id and info.plan.target.id == "/", "plan", info.plan)
    up = events.until("tells of a running task", lambda e: e.event_type == "status_update_event" and e.task_status == "TASK_RUNNING")
    check(up.app_id == "/tour/web" and len(up.ports) == 1, "update", up)
    healthy = events.until("tells of health", lambda e: e.event_type == "health_status_changed_event")
    check(healthy.alive and healthy.app_id == "/tour/web" and healthy.instance_id, "health", healthy)
    events.deployed(app)

    app = c.get_app("/tour/web", embed_tasks=True, embed_counts=True, embed_deployments=True, embed_readiness=True,
                    embed_last_task_failure=True, embed_failures=True, embed_task_stats=True)
    check(app.tasks_running == app.tasks_healthy == len(app.tasks) == 2 and app.deployments == [], "app", app)
    check(app.task_stats.with_latest_config.stats.counts.running == 2, "statistics", app.task_stats)
    check(app.constraints == [MarathonConstraint("hostname", "GROUP_BY")] and app.labels["team"] == "a", "as it was made", app)
    check(app.upgrade_strategy.minimum_health_capacity == 1 and app.unreachable_strategy.expunge_after_seconds == 120, "strategies")
    check(app.port_definitions[0].name == "http" and app.port_definitions[0].port >= 10000, "service port", app.port_definitions)
    check(all(t.health_check_results[0].alive and t.started_at for t in app.tasks), "tasks", app.tasks)
    check(len({t.slave_id for t in app.tasks}) == 2, "GROUP_BY hostname does not spread", app.tasks)
    check(app.readiness_check_results == [] or app.readiness_check_results[0]["ready"], "readiness")

    check(c.create_app("/tour/other", sleeper("/tour/other", instances=0, args=None)), "a second one")
    full = c.create_app("/tour/nulls", sleeper("/tour/nulls", instances=1), minimal=False)
    events.deployed(full)
    names = lambda **kwargs: [a.id for a in c.list_apps(**kwargs)]
    check(names() == ["/tour/nulls", "/tour/other", "/tour/web"], "all", names())
    check(names(app_id="other") == names(app_id="tour/o") == ["/tour/other"], "by id")
    check(names(cmd="sleep 1000") == ["/tour/nulls", "/tour/other"], "by command")
    check(names(label="tier==front,team in (a, b)") == ["/tour/web"] and names(label="nothing") == [], "by label")
    check(names(embed_tasks=True, embed_counts=True, embed_task_stats=True, embed_readiness=True, instances=2) == ["/tour/web"], "by kwargs")
    refused(MarathonHttpError, 422, c.list_apps, label="!!!")

    tasks = c.list_tasks("/tour/web")
    check(len(tasks) == 2 and len(c.list_tasks()) == 3 and len(c.list_tasks(host=tasks[0].host)) >= 1, "tasks", tasks)
    places = [e for e in c.list_endpoints() if e.app_id == "/tour/web"]
    check({(e.host, e.task_port) for e in places} == {(t.host, t.ports[0]) for t in tasks}, "endpoints", places)
    check({e.service_port for e in places} == {app.port_definitions[0].port}, "service ports", places)

    # Both are replaced, and never is there less than two.
    before = ids("/tour/web")
    events.deployed(c.restart_app("/tour/web"))
    after = ids("/tour/web")
    check(len(after) == 2 and not set(after) & set(before), "restarted", before, after)
    first = c.get_app("tour/web").version
    events.deployed(c.update_app("/tour/web", MarathonApp(env={VARIABLE: VALUE, "NEW": "1"}, cpus=0.2)))
    check(c.get_app("/tour/web").cpus == 0.2 and c.get_app("/tour/web").env["NEW"] == "1", "updated")
    events.deployed(c.scale_app("/tour/web", delta=1))
    events.deployed(c.scale_app("/tour/web", instances=2))
    check(len(ids("/tour/web")) == 2, "scaled")
    versions = c.list_versions("/tour/web")
    check(versions == sorted(versions, reverse=True) and first in versions and len(versions) == 5, "versions", versions)
    check(c.get_version("/tour/web", first).cpus == 0.1, "version")
    events.deployed(c.rollback_app("/tour/web", first))
    check(c.get_app("/tour/web").cpus == 0.1 and "NEW" not in c.get_app("/tour/web").env, "rolled back")
    events.deployed(c.update_apps([sleeper("/tour/other", instances=1), sleeper("/tour/third", instances=1)]))
    check(len(ids("/tour/other")) == len(ids("/tour/third")) == 1, "several at once")
    events.deployed(c.update_apps([sleeper("/tour/third", instances=0)], force=True, minimal=False))


def refusals():
    refused(NotFoundError, 404, c.get_app, "/nobody")
    refused(NotFoundError, 404, c.delete_app, "/nobody")
    refused(NotFoundError, 404, c.kill_task, "/tour/web", "nobody")
    e = refused(ConflictError, 409, c.create_app, "/tour/web", sleeper("/tour/web"))
    check("already exists" in e.error_message, e)
    e = refused(MarathonHttpError, 422, c.create_app, "/tour/bad", sleeper("/tour/bad", instances=-1))
    check(e.error_details[0]["path"] == "/instances", e.error_details)
    try:
        Client("http://127.0.0.1:9", *AUTH).ping()
        check(False, "nobody answers, and it finds an answer")
    except NoResponseError:
        pass
    if AUTH[0]:
        refused(MarathonHttpError, 401, Client(URL).get_info)
        refused(MarathonHttpError, 401, Client(URL, AUTH[0], "wrong").list_apps)


def kills(events):
    before = ids("/tour/web")
    killed = c.kill_task("/tour/web", before[0])
    check(killed.id == before[0] and killed.app_id == "/tour/web", "killed", killed)
    replaced = eventually("it is replaced", lambda: len(t := ids("/tour/web")) == 2 and before[0] not in t and t)
    check(before[1] in replaced, "the other one is untouched", replaced)
    gone = c.kill_tasks("/tour/web", host=c.list_tasks("/tour/web")[0].host)
    check(gone and all(t.id in replaced for t in gone), "killed on a host", gone)
    eventually("they are replaced", lambda: len(t := ids("/tour/web")) == 2 and not {g.id for g in gone} & set(t))
    eventually("they are healthy", lambda: c.get_app("/tour/web").tasks_healthy == 2)
    events.deployed(c.scale_app("/tour/other", instances=3))
    check(c.kill_given_tasks(ids("/tour/other")[:1], scale=True, force=True), "killed by id")
    eventually("two are left", lambda: len(ids("/tour/other")) == 2 and c.get_app("/tour/other").instances == 2)
    eventually("nothing is deployed", lambda: not c.list_deployments())
    events.deployed(c.kill_tasks("/tour/other", scale=True))
    check(c.get_app("/tour/other").instances == 0, "killed and scaled down")


def groups(events):
    events.deployed(c.create_group(MarathonGroup(id="/shop", apps=[sleeper("db"), sleeper("web", dependencies=["/shop/db"])], groups=[
        MarathonGroup(id="inner", apps=[sleeper("job", instances=2)])])))
    check([g.id for g in c.list_groups()] == ["/shop", "/tour"] and [g.id for g in c.list_groups(id="/shop")] == ["/shop"], "groups")
    shop = c.get_group("/shop")
    check([a.id for a in shop.apps] == ["/shop/db", "/shop/web"] and shop.groups[0].apps[0].id == "/shop/inner/job", "group", shop)
    check(shop.apps[1].dependencies == ["/shop/db"], "dependencies", shop.apps[1])
    events.deployed(c.scale_group("/shop", 2))
    check([c.get_app(a).instances for a in ("/shop/db", "/shop/web", "/shop/inner/job")] == [2, 2, 4], "scaled")
    events.deployed(c.update_group("/shop", MarathonGroup(apps=[sleeper("web", instances=1)])))
    check([a.id for a in c.get_group("shop").apps] == ["/shop/web"], "what an update leaves out is removed")
    # The library asks for it in a way that no Marathon has had since 2014; what matters is that it hears so.
    refused(MarathonHttpError, 422, c.rollback_group, "/shop", shop.version)
    refused(ConflictError, 409, c.create_group, MarathonGroup(id="/shop"))
    events.deployed(c.delete_group("/shop"))
    refused(NotFoundError, 404, c.get_group, "/shop")


def waiting(events):
    big = c.create_app("/big", sleeper("/big", instances=2, labels={"size": "big"}))
    events.deployed(big)
    before = ids("/big")
    stuck = c.update_app("/big", MarathonApp(cpus=1000))["deploymentId"]
    item = eventually("it waits", lambda: [q for q in c.list_queue(embed_last_unused_offers=True) if q.last_unused_offers])[0]
    check(item.app.id == "/big" and item.count >= 1 and item.app.cpus == 1000, "queue", item)
    check(any("InsufficientCpus" in o["reason"] for o in item.last_unused_offers), "why", item.last_unused_offers)
    check(c.list_queue()[0].delay.overdue in (True, False) and c.list_queue()[0].since, "queue")
    c.reset_delay("/big")
    check([d.id for d in c.list_deployments()] == [stuck], "deployments")
    # Taken back it is as it was, and what ran meanwhile runs on.
    events.deployed(c.delete_deployment(stuck))
    check(c.get_app("/big").cpus == 0.01 and not c.list_queue() and ids("/big") == before, "taken back")
    stuck = c.update_app("/big", MarathonApp(cpus=1000))["deploymentId"]
    check(c.delete_deployment(stuck, force=True) == {}, "dropped")
    eventually("no deployment is left", lambda: not c.list_deployments())
    events.until("tells that it has failed", lambda e: e.event_type == "deployment_failed" and e.id == stuck)
    deleted = c.delete_app("/big", force=True)
    events.until("tells that it is gone", lambda e: e.event_type == "app_terminated_event" and e.app_id == "/big")
    events.deployed(deleted)


def callbacks():
    got = queue.Queue()

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    check(c.create_event_subscription(url)["callbackUrl"] == url and c.list_event_subscriptions() == [url], "subscribed")
    c.scale_app("/tour/third", instances=1)
    while (e := got.get(timeout=30))["eventType"] != "deployment_success":
        pass
    check(c.delete_event_subscription(url)["eventType"] == "unsubscribe_event" and c.list_event_subscriptions() == [], "unsubscribed")
    server.shutdown()


def main():
    events = Stream()
    events.until("greets", lambda e: e.event_type == "event_stream_attached")
    about_itself()
    apps(events)
    refusals()
    kills(events)
    groups(events)
    waiting(events)
    callbacks()
    some = Stream(event_types=[MarathonDeploymentSuccess, "status_update_event"])
    raw = Stream(raw=True, event_types=["app_terminated_event"])
    # A filtered stream is not greeted: what comes is asked for until it comes.
    eventually("the filtered streams are open", lambda: c.scale_app("/tour/third", instances=len(some.seen) % 2, force=True) and not some.events.empty())
    eventually("so is the other", lambda: c.create_app("/gone", sleeper("/gone", instances=0)) and c.delete_app("/gone", force=True) and not raw.events.empty())
    check(isinstance(some.events.queue[0], (MarathonDeploymentSuccess, MarathonStatusUpdateEvent)), "filtered")
    c.delete_group("/tour", force=True)
    eventually("it tells of the end of the group's apps", lambda: any(json.loads(e)["appId"].startswith("/tour/") for e in list(raw.events.queue)))
    check(json.loads(raw.events.get())["eventType"] == "app_terminated_event", "raw")
    eventually("everything is gone", lambda: not c.list_apps() and not c.list_tasks() and not c.list_deployments())
    check(c.delete_leader()["message"] == "Leadership abdicated", "abdicated")
    eventually("the streams have ended", lambda: not any(s.thread.is_alive() for s in (events, some, raw)))
    check(events.ended is some.ended is raw.ended is None, "the streams have failed:", events.ended, some.ended, raw.ended)

    def leads():
        try:
            return c.get_info().elected
        except MarathonHttpError:
            return False
    eventually("it leads again", leads)
    check(called == METHODS, "not called:", METHODS - called)


main()
print("done")
