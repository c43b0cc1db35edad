package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"starling/marathon"
	"starling/marathon/mastertest"
	"starling/master/mesos"
)

// appFields are those of every definition, however little was said in it.
const appFields = "backoffFactor backoffSeconds cmd cpus disk executor gpus id instances killSelection labels maxLaunchDelaySeconds mem " +
	"networks portDefinitions requirePorts role unreachableStrategy upgradeStrategy version versionInfo"

// with adds fields to a list of them.
func with(fields string, more ...string) string {
	all := append(strings.Fields(fields), more...)
	slices.Sort(all)
	return strings.Join(slices.Compact(all), " ")
}

// at walks into an answer: names of fields and indices, with dots.
func at(t *testing.T, v any, path string) any {
	t.Helper()
	for part := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '.' }) {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			n, err := strconv.Atoi(part)
			if err != nil || n >= len(x) {
				t.Fatalf("no %s in a list of %d", part, len(x))
			}
			v = x[n]
		default:
			t.Fatalf("no %s in %v", part, v)
		}
	}
	return v
}

// TestAnswersHaveTheFieldsThatClientsKnow compares the fields of each answer with the reference: strict clients fail on one that
// they do not know, others on one that lacks.
func TestAnswersHaveTheFieldsThatClientsKnow(t *testing.T) {
	r := newMarathonRig(t, func(c *marathon.Config) { c.TaskKilling = true })
	r.cluster.Add(mastertest.Agent{
		ID: "a2", Host: "other", CPUs: 20, Mem: 1 << 16, Disk: 1 << 20, FirstPort: 31000, LastPort: 31999, Region: "eu", Zone: "eu-1",
	})
	check := `"healthChecks":[{"protocol":"MESOS_HTTP","gracePeriodSeconds":1,"maxConsecutiveFailures":0}]`
	r.want(201, "POST", "/v2/apps", `{"id":"/g/web","cmd":"x","cpus":0.1,"constraints":[["@zone","IS","eu-1"]],`+check+`}`)
	r.want(201, "POST", "/v2/apps", `{"id":"/bad","cmd":"x","cpus":0.1,"backoffSeconds":3600,"constraints":[["rack","IS","r1"]]}`)
	r.want(201, "POST", "/v2/apps", `{"id":"/big","cmd":"x","cpus":1000}`)
	r.eventually("both run", func() bool { return r.running("web.g") == 1 && r.running("bad") == 1 })
	for _, task := range r.cluster.Tasks() {
		id := task.Info.GetTaskId().GetValue()
		var err error
		if task.Info.GetName() == "bad" {
			err = r.cluster.End(id, mesos.TaskState_TASK_FAILED, "oh")
		} else if err = r.cluster.Healthy(id, true); err == nil {
			err = r.cluster.Healthy(id, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("health and failure are known", func() bool {
		return strings.Contains(r.do("GET", "/v2/tasks", "").body, `"lastFailure"`) && strings.Contains(r.do("GET", "/v2/apps/bad", "").body, `"oh"`) &&
			strings.Contains(r.do("GET", "/v2/queue?embed=lastUnusedOffers", "").body, `"name":"rack"`)
	})

	task := "appId healthCheckResults host id ipAddresses localVolumes ports region role servicePorts slaveId stagedAt startedAt state version zone"
	counts := []string{"tasksHealthy", "tasksRunning", "tasksStaged", "tasksUnhealthy"}
	bad := with(appFields, append(counts, "constraints", "deployments")...)
	for _, tc := range []struct {
		path, part, want string
	}{
		{"/v2/apps", "", "apps"},
		{"/v2/apps?id=bad", "apps.0", bad},
		{"/v2/apps?id=bad", "apps.0.versionInfo", "lastConfigChangeAt lastScalingAt"},
		{"/v2/apps?id=bad", "apps.0.portDefinitions.0", "name port protocol"},
		{"/v2/apps?id=bad", "apps.0.upgradeStrategy", "maximumOverCapacity minimumHealthCapacity"},
		{"/v2/apps?id=bad", "apps.0.unreachableStrategy", "expungeAfterSeconds inactiveAfterSeconds"},
		{"/v2/apps?id=bad&embed=apps.failures", "apps.0", with(bad, "lastTaskFailure", "tasks")},
		{"/v2/apps?id=bad&embed=apps.readiness", "apps.0", with(bad, "readinessCheckResults")},
		{"/v2/apps?id=web&embed=apps.lastTaskFailure", "apps.0", with(bad, "healthChecks")},
		{"/v2/apps?id=web", "apps.0.healthChecks.0", "delaySeconds gracePeriodSeconds ignoreHttp1xx intervalSeconds ipProtocol maxConsecutiveFailures portIndex protocol timeoutSeconds"},
		{"/v2/apps?id=web&embed=apps.tasks", "apps.0", with(bad, "healthChecks", "tasks")},
		{"/v2/apps/bad", "", "app"},
		{"/v2/apps/bad", "app", with(bad, "lastTaskFailure", "tasks")},
		{"/v2/apps/bad", "app.lastTaskFailure", "appId host message slaveId state taskId timestamp version"},
		{"/v2/apps/g/*", "", "*"},
		{"/v2/apps/g/*", "*.0", with(bad, "healthChecks", "tasks")},
		{"/v2/apps/g/web/tasks", "tasks.0", task},
		{"/v2/tasks", "tasks.0", task},
		{"/v2/tasks", "tasks.0.healthCheckResults.0", "alive consecutiveFailures firstSuccess instanceId lastFailure lastSuccess taskId"},
		{"/v2/apps/bad/versions", "", "versions"},
		{"/v2/groups", "", "apps dependencies groups id pods version"},
		{"/v2/groups", "apps.0", with(appFields, "constraints")},
		{"/v2/groups/g?embed=group.apps&embed=group.apps.tasks&embed=group.apps.counts", "apps.0", with(bad, "healthChecks", "tasks")},
		{"/v2/deployments", "0", "affectedApps affectedPods currentActions currentStep id steps totalSteps version"},
		{"/v2/deployments", "0.steps.0.actions.0", "action app"},
		{"/v2/deployments", "0.currentActions.0", "action app readinessCheckResults"},
		{"/v2/queue", "", "queue"},
		{"/v2/queue", "queue.0", "app count delay processedOffersSummary since"},
		{"/v2/queue", "queue.0.delay", "overdue timeLeftSeconds"},
		{"/v2/queue", "queue.0.processedOffersSummary", "processedOffersCount rejectSummaryLastOffers rejectSummaryLaunchAttempt unusedOffersCount"},
		{"/v2/queue", "queue.1.processedOffersSummary", "lastUnusedOfferAt processedOffersCount rejectSummaryLastOffers rejectSummaryLaunchAttempt unusedOffersCount"},
		{"/v2/queue", "queue.1.processedOffersSummary.rejectSummaryLastOffers.9", "declined processed reason"},
		{"/v2/queue?embed=lastUnusedOffers", "queue.1", "app count delay lastUnusedOffers processedOffersSummary since"},
		{"/v2/queue?embed=lastUnusedOffers", "queue.1.lastUnusedOffers.0.offer", "agentId attributes hostname id resources"},
		{"/v2/queue?embed=lastUnusedOffers", "queue.1.lastUnusedOffers.0.offer.resources.0", "name role scalar"},
		{"/v2/queue?embed=lastUnusedOffers", "queue.1.lastUnusedOffers.0.offer.attributes.0", "name text"},
		{"/v2/schemas/app", "", "$schema properties required type"},
		{"/v2/schemas/pod", "", "$schema properties required type"},
		{"/v2/schemas/group", "", "$schema properties type"},
		{"/v2/leader", "", "leader"},
		{"/v2/plugins", "", "plugins"},
		{"/metrics", "", "counters gauges histograms meters timers version"},
	} {
		var body any
		if err := json.Unmarshal([]byte(r.want(200, "GET", tc.path, "").body), &body); err != nil {
			t.Fatalf("%s: %v", tc.path, err)
		}
		fields, ok := at(t, body, tc.part).(map[string]any)
		if got := strings.Join(slices.Sorted(maps.Keys(fields)), " "); !ok || got != tc.want {
			t.Errorf("GET %s at %q\nhas  %s\nwant %s", tc.path, tc.part, got, tc.want)
		}
	}
	// Of statistics, each part is there that covers a task.
	stats := r.want(200, "GET", "/v2/apps?id=web&embed=apps.taskStats", "").json(t)
	for _, part := range []string{"startedAfterLastScaling", "withLatestConfig", "totalSummary"} {
		got := fmt.Sprint(at(t, stats, "apps.0.taskStats."+part+".stats.counts"))
		if got != "map[healthy:0 running:1 staged:0 unhealthy:1]" {
			t.Errorf("%s: %s", part, got)
		}
		if at(t, stats, "apps.0.taskStats."+part+".stats.lifeTime.medianSeconds") == nil {
			t.Errorf("%s has no life time", part)
		}
	}
	if at(t, stats, "apps.0.taskStats.withOutdatedConfig") != nil {
		t.Error("statistics about tasks of an older configuration, which there are none of")
	}
}
