"use strict";

// Takes the package marathon-node through all that it can do, against a real Marathon. It exits with 0 once everything was as it
// should be.
//
// Usage: node tour.js URL [USER PASSWORD]

const assert = require("assert");
const Marathon = require("marathon-node");

const [url, user, pass] = process.argv.slice(2);
const m = Marathon(url, user ? { auth: { user, pass } } : {});
const sleeper = (id, more) => Object.assign({ id, cmd: "exec sleep 1000", cpus: 0.01, mem: 16 }, more);

async function eventually(what, f) {
    for (const end = Date.now() + 30000; ;) {
        const got = await f();
        if (got) {
            return got;
        }
        assert(Date.now() < end, "not in time: " + what);
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
}

async function refused(status, promise) {
    const answer = await promise.then((got) => ({ statusCode: "none, but " + JSON.stringify(got) }), (e) => e);
    assert.equal(answer.statusCode, status);
    return answer.error;
}

const idle = () => eventually("nothing is deployed", async () => (await m.deployments.getList()).length === 0);
const tasks = async (id) => (await m.app.getTasks(id)).tasks.map((t) => t.id).sort();

async function main() {
    assert.equal(await m.misc.ping(), "pong");
    await eventually("it is a framework", async () => (await m.info.get()).frameworkId);
    assert.equal((await m.leader.get()).leader, new URL(url).host);

    const app = await m.app.create(sleeper("/npm/a", { instances: 2, labels: { tier: "back" } }));
    assert.equal(app.deployments.length, 1);
    await idle();
    assert.equal((await m.app.getList({ label: "tier==back", embed: "apps.tasks" })).apps[0].tasks.length, 2);
    assert.equal((await m.app.getOne("/npm/a", { embed: "app.counts" })).app.tasksRunning, 2);
    const before = await tasks("/npm/a");
    assert.equal((await m.tasks.getList()).tasks.length, 2);

    assert((await m.app.restart("/npm/a")).deploymentId);
    await idle();
    const after = await tasks("/npm/a");
    assert(after.length === 2 && !after.some((t) => before.includes(t)), `${after} after ${before}`);
    assert((await m.app.update("/npm/a", { instances: 3 })).deploymentId);
    await idle();
    assert((await m.app.update("/npm/a", { instances: 4 }, true)).deploymentId);
    await idle();
    assert.equal((await m.app.killTask("/npm/a", after[0], true)).deploymentId.length, 36);
    await idle();
    await m.tasks.kill({ ids: [after[1]] }, true);
    await idle();
    assert.equal((await tasks("/npm/a")).length, 2);
    assert.equal((await m.app.killTasks("/npm/a", { host: "nowhere" })).tasks.length, 0);
    assert((await m.app.killTasks("/npm/a", { scale: true })).deploymentId);
    await idle();
    const { versions } = await m.app.getVersions("/npm/a");
    assert.equal((await m.app.getVersion("/npm/a", versions[versions.length - 1])).instances, 2);

    await m.groups.create({ id: "/npm/g", apps: [sleeper("one"), sleeper("two", { dependencies: ["one"] })] });
    await idle();
    assert.deepEqual((await m.groups.getOne("/npm/g")).apps.map((a) => a.id), ["/npm/g/one", "/npm/g/two"]);
    await m.groups.update("/npm/g", { scaleBy: 2 });
    await idle();
    assert.equal((await m.groups.getList()).groups[0].groups[0].apps[0].instances, 2);
    await m.groups.destroy("/npm/g");
    await idle();
    await refused(404, m.groups.getOne("/npm/g"));

    const stuck = await m.app.create(sleeper("/npm/big", { cpus: 1000 }));
    const queue = await eventually("it waits", async () => (await m.queue.get()).queue[0]);
    assert.equal(queue.app.id, "/npm/big");
    await refused(409, m.app.update("/npm/big", { instances: 5 }));
    await m.queue.resetDelay("/npm/big");
    await m.deployments.destroy(stuck.deployments[0].id, true);
    await idle();
    await m.app.destroy("/npm/big", true);
    await idle();

    const callback = "http://127.0.0.1:9/";
    await m.subscriptions.create(callback);
    assert.deepEqual((await m.subscriptions.getList()).callbackUrls, [callback]);
    await m.subscriptions.delete(callback);

    const headers = user ? { Authorization: "Basic " + Buffer.from(user + ":" + pass).toString("base64") } : {};
    const source = m.events.createEventSource({ eventType: ["deployment_success", "app_terminated_event"], headers });
    const seen = [];
    for (const type of ["deployment_success", "app_terminated_event", "status_update_event", "api_post_event"]) {
        source.addEventListener(type, (e) => seen.push(type, JSON.parse(e.data)));
    }
    await new Promise((resolve) => source.addEventListener("open", resolve));
    const stream = await m.events.attach(); // the old way
    assert.equal(stream.statusCode, 200);
    stream.destroy();
    const { deploymentId } = await m.app.destroy("/npm/a");
    await eventually("its end is told", () => seen.some((e) => e.id === deploymentId));
    assert.deepEqual(seen.filter((e) => typeof e === "string"), ["app_terminated_event", "deployment_success"]);
    source.close();

    await refused(404, m.app.getOne("/npm/a"));
    assert.equal((await refused(422, m.app.create(sleeper("/npm/a", { instances: -1 })))).details[0].path, "/instances");
    assert.equal((await m.leader.abdicate()).message, "Leadership abdicated");
}

main().then(() => console.log("done"), (e) => {
    console.error(e);
    process.exit(1); // streams may be open
});
