"use strict";

// Follows the events of a Marathon with the package marathon-event-bus-client, and says each as a line with "> " in front:
// its name and its data.
//
// Usage: node follow.js HOST PORT [USER:PASSWORD]

const MarathonEventBusClient = require("marathon-event-bus-client");

const [marathonHost, marathonPort, credentials] = process.argv.slice(2);

function say(...words) {
    process.stdout.write("> " + words.join(" ") + "\n");
}

const options = { marathonHost, marathonPort, handlers: {} };
// It follows three types of its own accord; these are all that it knows.
options.eventTypes = new MarathonEventBusClient({}).allowedEventTypes;
for (const type of options.eventTypes) {
    options.handlers[type] = (name, data) => say(name, JSON.stringify(data));
}
if (credentials) {
    options.marathonHeaders = { Authorization: "Basic " + Buffer.from(credentials).toString("base64") };
}
const client = new MarathonEventBusClient(options);
client.on("subscribed", () => say("subscribed"));
client.on("error", (e) => say("error", JSON.stringify(e.error)));
client.subscribe();
