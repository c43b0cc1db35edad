"use strict";

// A scheduler on the package mesos-framework, which speaks JSON. What it may use is said by clients_test.go, which drives it:
// orders come as lines on the input, what happens goes as lines with "> " in front to the output.
//
// Usage: node scheduler.js HOST PORT [FRAMEWORK-ID]

const os = require("os");
const readline = require("readline");
const { Scheduler, Mesos } = require("mesos-framework");

const mesos = Mesos.getMesos();
const [host, port, id] = process.argv.slice(2);
const agents = {}; // by task id
const ids = {}; // by the name that was given with the order

function say(...words) {
    process.stdout.write("> " + words.join(" ") + "\n");
}

const scheduler = new Scheduler({
    masterUrl: host,
    port: port,
    user: os.userInfo().username,
    frameworkName: "others",
    frameworkFailoverTimeout: 300,
    masterConnectionTimeout: 60, // longer than the time between two heartbeats
    restartStates: [],
    serialNumberedTasks: false,
    logging: { path: process.cwd(), fileName: "scheduler.log", level: "error" },
    tasks: {}
});
if (id) {
    scheduler.frameworkId = id;
}

// The package subscribes anew by itself when a stream ends in order, and where it is redirected to. It leaves to others what to
// do when a master dies, or does not lead and knows of nobody who does.
let again = null;
const subscribe = scheduler.subscribe.bind(scheduler);
scheduler.subscribe = function () {
    clearTimeout(again);
    again = null;
    scheduler.mesosStreamId = undefined;
    delete scheduler.requestTemplate.headers["mesos-stream-id"];
    subscribe();
    scheduler.httpRequest.on("response", function (answer) {
        if (answer.statusCode !== 200 && answer.statusCode !== 307) {
            later();
        }
        answer.on("aborted", function () {
            say("aborted");
            later();
        });
    });
    scheduler.httpRequest.on("error", later);
};

function later() {
    if (!again) {
        again = setTimeout(() => scheduler.subscribe(), 200);
    }
}

scheduler.on("ready", () => scheduler.subscribe());
scheduler.on("subscribed", (event) => say("subscribed", event.frameworkId));
scheduler.on("error", function (error) {
    const text = String(error && error.message ? error.message : error);
    say("error", text.replace(/\s+/g, " "));
});
scheduler.on("update", function (update) {
    const status = update.status;
    const task = status.task_id.value;
    const name = task.split(".")[1];
    ids[name] = task;
    if (status.agent_id) {
        agents[task] = status.agent_id.value;
    }
    say("update", name, status.state, status.reason || "-", status.uuid ? "uuid" : "-");
});
scheduler.on("offers", function (event) {
    say("offers", event.offers.length);
    // It has no MULTI_ROLE, and knows nothing of allocations.
    if (event.offers.some((offer) => offer.allocation_info || offer.resources.some((one) => one.allocation_info || !one.role))) {
        say("error", "offer is not for a framework without MULTI_ROLE:", JSON.stringify(event.offers));
    }
});
for (const sent of ["accept", "decline", "acknowledge", "kill", "reconcile", "revive", "teardown"]) {
    scheduler.on("sent_" + sent, () => say("sent", sent));
}

const orders = {
    launch(name, ...command) {
        scheduler.pendingTasks.push({
            name: name,
            isSubmitted: false,
            allowScaling: false,
            commandInfo: new mesos.CommandInfo(null, null, true, command.join(" "), null, null),
            resources: { cpus: 0.1, mem: 32, disk: 0, ports: 1 }
        });
        scheduler.revive();
    },
    kill(name) {
        scheduler.kill(ids[name], agents[ids[name]]);
    },
    reconcile() {
        scheduler.reconcile();
    },
    teardown() {
        scheduler.teardown();
    }
};

readline.createInterface({ input: process.stdin }).on("line", function (line) {
    const words = line.split(" ");
    orders[words[0]](...words.slice(1));
});
