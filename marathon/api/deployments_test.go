package api_test

import (
	"encoding/json"
	"fmt"
	"testing"
)

func TestDeploymentsAndQueue(t *testing.T) {
	r := newRig(t)
	r.want(201, "POST", "/v2/apps", `{"id":"/web","cmd":"sleep 1","cpus":0.1}`)
	r.settled()
	r.cluster.Hold(true)
	id := r.want(200, "PUT", "/v2/apps/web", `{"instances":2}`).json(t)["deploymentId"].(string)
	var list []map[string]any
	if err := json.Unmarshal([]byte(r.want(200, "GET", "/v2/deployments", "").body), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0]["id"] != id || list[0]["currentStep"] != 1.0 || list[0]["totalSteps"] != 1.0 {
		t.Fatalf("deployments: %v", list)
	}
	if got := r.want(200, "GET", "/v2/deployments/"+id, "").json(t)["id"]; got != id {
		t.Errorf("deployment: %v", got)
	}
	undo := r.want(200, "DELETE", "/v2/deployments/"+id, "").json(t)["deploymentId"]
	if undo == id {
		t.Error("the way back has the id of the way there")
	}
	r.cluster.Hold(false)
	r.settled()
	if got := r.want(200, "GET", "/v2/apps/web", "").json(t)["app"].(map[string]any)["instances"]; got != 1.0 {
		t.Errorf("after the way back: %v instances", got)
	}
	r.cluster.Hold(true)
	id = r.want(200, "PUT", "/v2/apps/web", `{"instances":2}`).json(t)["deploymentId"].(string)
	if got := r.want(202, "DELETE", "/v2/deployments/"+id+"?force=true", ""); got.body != "" {
		t.Errorf("cancelled with a body: %q", got.body)
	}
	r.want(404, "DELETE", "/v2/deployments/"+id+"?force=true", "")
	r.want(404, "DELETE", "/v2/deployments/"+id, "")
	r.cluster.Hold(false)

	r.want(201, "POST", "/v2/apps", `{"id":"/big","cmd":"sleep 1","cpus":1000,"constraints":[["rack","LIKE","r2"]]}`)
	r.eventually("an offer was refused", func() bool {
		summary := r.want(200, "GET", "/v2/queue", "").json(t)["queue"].([]any)[0].(map[string]any)["processedOffersSummary"]
		return summary.(map[string]any)["unusedOffersCount"].(float64) > 0
	})
	item := r.want(200, "GET", "/v2/queue?embed=lastUnusedOffers", "").json(t)["queue"].([]any)[0].(map[string]any)
	if item["count"] != 1.0 || item["delay"].(map[string]any)["overdue"] != true || item["app"].(map[string]any)["id"] != "/big" {
		t.Errorf("queue item: %v", item)
	}
	rows := item["processedOffersSummary"].(map[string]any)["rejectSummaryLastOffers"].([]any)
	if row := rows[1].(map[string]any); row["reason"] != "UnfulfilledConstraint" || row["declined"] != 1.0 || len(rows) != 10 {
		t.Errorf("funnel: %v", rows)
	}
	unused := item["lastUnusedOffers"].([]any)[0].(map[string]any)
	if fmt.Sprint(unused["reason"]) != "[UnfulfilledConstraint InsufficientCpus]" {
		t.Errorf("reasons: %v", unused["reason"])
	}
	if _, ok := r.want(200, "GET", "/v2/queue", "").json(t)["queue"].([]any)[0].(map[string]any)["lastUnusedOffers"]; ok {
		t.Error("unused offers are shown though nobody asked")
	}
}
