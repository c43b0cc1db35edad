package api

import (
	"strings"
	"testing"

	"starling/agent"
	"starling/agent/containerizer/containerizertest"
)

// measured is a containerizer with numbers of its own.
type measured struct{ *containerizertest.Fake }

func (measured) Measure(out map[string]float64) {
	out["containerizer/docker/image_pull_ms"], out["containerizer/docker/image_pull_ms/count"] = 12.5, 3
}

func TestNumbersOfTheContainerizerAreShown(t *testing.T) {
	site := newSite(t, nil)
	site.change = func(c *agent.Config) { c.Containerizer = measured{site.fake} }
	s := site.serve()
	for path, want := range map[string][]string{
		"/metrics/snapshot":   {`"containerizer/docker/image_pull_ms":12.5`, `"slave/tasks_running":0.0`},
		"/metrics/prometheus": {"starling_agent_image_pulls_total 3\n", `starling_agent_tasks{state="running"} 0`},
	} {
		_, got := s.get(path)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s lacks %s:\n%s", path, w, got)
			}
		}
	}
}
