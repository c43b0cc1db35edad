package allocator

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

var update = flag.Bool("update", false, "rewrite the stories in testdata")

// TestStories runs each file of testdata: a property in comments, then steps, each a few commands, a line of dashes, and
// what they print. The books are checked after every command. The commands:
//
//	config [interval=D] [burst=N] [min=ALTERNATIVES] [region=R] [gpus-to-all] [excluded=NAME,...]
//	agent ID TOTAL [region=R] [inactive] [rack=TEXT]   add or change; a new one has all of it free
//	free ID RES                                        what its record has free
//	remove-agent ID
//	framework ID roles=R,... [suppressed=R,...] [caps=C,...] [min=ALTERNATIVES] [rack=TEXT]   add or change, and activate
//	activate | deactivate | remove ID
//	used FRAMEWORK ROLE AGENT RES                      what its tasks use
//	allocate                                           prints the grants
//	return FRAMEWORK ROLE AGENT RES|all [DURATION]     with a filter
//	consume FRAMEWORK ROLE AGENT RES|all
//	settle AGENT RES|all
//	suppress | revive FRAMEWORK [ROLE,...]
//	weight ROLE N
//	quota ROLE [guarantee=RES] [limit=RES]
//	after DURATION                                     moves the clock
//	books AGENT | explain FRAMEWORK ROLE | wake | shares ROLE... | short | charged ROLE   print what they say
//
// With -update the outputs are written anew; commit a change only if every line of it can be explained.
func TestStories(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(text), "# ") {
				t.Error("a story opens with the property it shows")
			}
			got := tell(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(text), got); d != "" {
				t.Errorf("story (-want +got):\n%s", d)
			}
		})
	}
}

// tell runs the steps of a story and returns it with the outputs that they have.
func tell(t *testing.T, text string) string {
	t.Helper()
	s := &story{t: t, now: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)}
	s.begin = s.now
	s.a = New(DefaultConfig(), rand.New(rand.NewPCG(1, 2)))
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		commands, _, has := strings.Cut(block, "\n----")
		out.WriteString(commands + "\n")
		s.out.Reset()
		for line := range strings.Lines(commands) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				s.run(line)
			}
		}
		if has || s.out.Len() > 0 {
			out.WriteString("----\n" + s.out.String())
		}
	}
	return out.String()
}

type story struct {
	t          *testing.T
	a          *Allocator
	begin, now time.Time
	out        strings.Builder
}

func (s *story) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

func (s *story) res(text string) resources.Resources {
	if text == "{}" {
		return resources.Resources{}
	}
	rs, err := resources.Parse(text, "*")
	if err != nil {
		s.t.Fatalf("%q: %v", text, err)
	}
	return rs
}

func (s *story) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// options takes apart name=value words.
func options(words []string) map[string]string {
	out := make(map[string]string)
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		out[name] = value
	}
	return out
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

func (s *story) alternatives(text string) []Quantities {
	qs, err := ParseMinAllocatable(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return qs
}

func (s *story) run(line string) {
	w := strings.Fields(line)
	verb, w := w[0], w[1:]
	switch verb {
	case "config":
		s.config(options(w))
	case "agent":
		s.agent(w[0], w[1], options(w[2:]))
	case "free":
		s.a.SetFree(w[0], s.res(w[1]))
	case "remove-agent":
		s.a.RemoveAgent(w[0])
	case "framework":
		s.framework(w[0], options(w[1:]))
	case "activate":
		s.a.ActivateFramework(w[0])
	case "deactivate":
		s.a.DeactivateFramework(w[0])
	case "remove":
		s.a.RemoveFramework(w[0])
	case "used":
		s.a.SetUsed(w[0], w[1], w[2], s.res(w[3]))
	case "allocate":
		for _, g := range s.a.Allocate(s.now) {
			s.printf("%s in %s on %s: %s", g.Framework, g.Role, g.Agent, g.Resources.Unallocated())
			if got := g.Resources.Allocations(); !slices.Equal(got, []string{g.Role}) {
				s.t.Errorf("%s: want all allocated to %q, got %q", line, g.Role, got)
			}
		}
		if s.out.Len() == 0 {
			s.printf("nothing")
		}
	case "return":
		g := Grant{Framework: w[0], Role: w[1], Agent: w[2], Resources: s.offered(w[0], w[1], w[2], w[3])}
		filter := time.Duration(0)
		if len(w) > 4 {
			filter = s.duration(w[4])
		}
		s.a.Return(g, filter, s.now)
	case "consume":
		s.a.Consume(w[0], w[1], w[2], s.offered(w[0], w[1], w[2], w[3]))
	case "settle":
		if w[1] == "all" {
			s.a.Settle(w[0], s.a.Pending(w[0]))
		} else {
			s.a.Settle(w[0], s.res(w[1]))
		}
	case "suppress", "revive":
		var roles []Role
		if len(w) > 1 {
			roles = list(w[1])
		}
		if verb == "suppress" {
			s.a.Suppress(w[0], roles)
		} else {
			s.a.Revive(w[0], roles)
		}
	case "weight":
		weight, err := strconv.ParseFloat(w[1], 64)
		if err != nil {
			s.t.Fatal(err)
		}
		s.a.SetWeight(w[0], weight)
	case "quota":
		o := options(w[1:])
		s.a.SetQuota(w[0], Quota{Guarantee: s.quantities(o["guarantee"]), Limit: s.quantities(o["limit"])})
	case "after":
		s.now = s.now.Add(s.duration(w[0]))
	case "books":
		ag := s.a.agents[w[0]]
		s.printf("free %s, offered %s, pending %s, available %s", ag.free, s.a.Offered(w[0]), s.a.Pending(w[0]), s.a.Available(w[0]))
		if s.a.Overdrawn(w[0]) {
			s.printf("overdrawn")
		}
	case "explain":
		for _, r := range s.a.Explain(w[0], w[1], s.now) {
			s.printf("%s", r)
		}
	case "wake":
		if at, ok := s.a.NextWake(); ok {
			s.printf("in %v", at.Sub(s.now))
		} else {
			s.printf("never")
		}
	case "short":
		s.printf("short of {%s}", s.a.Short())
	case "charged":
		s.printf("%s: {%s}", w[0], s.a.Charged(w[0]))
	case "shares":
		for _, role := range w {
			s.printf("%s: %.3f", role, s.a.Share(role))
		}
	default:
		s.t.Fatalf("no command %q", verb)
	}
	if err := s.a.Check(); err != nil {
		s.t.Errorf("after %q: %v", line, err)
	}
}

// offered is the resources of a word, "all" for all that is offered to a client on an agent.
func (s *story) offered(framework, role, on, text string) resources.Resources {
	if text != "all" {
		return s.res(text)
	}
	if c, ag := s.a.lookup(framework, role), s.a.agents[on]; c != nil && ag != nil {
		return ag.offers[c]
	}
	return resources.Resources{}
}

func (s *story) quantities(text string) Quantities {
	if text == "" {
		return nil
	}
	q := make(Quantities)
	for one := range strings.SplitSeq(text, ";") {
		name, number, _ := strings.Cut(one, ":")
		amount, err := strconv.ParseFloat(number, 64)
		if err != nil {
			s.t.Fatalf("%q: %v", text, err)
		}
		if q[name], err = resources.FromFloat(amount); err != nil { // a limit of 0 is one
			s.t.Fatalf("%q: %v", text, err)
		}
	}
	return q
}

func (s *story) config(o map[string]string) {
	cfg := DefaultConfig()
	for name, value := range o {
		switch name {
		case "interval":
			cfg.Interval = s.duration(value)
		case "burst":
			n, err := strconv.Atoi(value)
			if err != nil {
				s.t.Fatal(err)
			}
			cfg.Burst = n
		case "min":
			cfg.MinAllocatable = s.alternatives(value)
		case "region":
			cfg.Region = value
		case "gpus-to-all":
			cfg.GPUsToAll = true
		case "excluded":
			cfg.Excluded = list(value)
		default:
			s.t.Fatalf("no setting %q", name)
		}
	}
	s.a = New(cfg, rand.New(rand.NewPCG(1, 2)))
}

func (s *story) agent(id, total string, o map[string]string) {
	spec := AgentSpec{Total: s.res(total), Hostname: id, Region: o["region"], Active: true}
	if _, ok := o["inactive"]; ok {
		spec.Active = false
	}
	if rack, ok := o["rack"]; ok {
		spec.Attributes = []*mesos.Attribute{{
			Name: proto.String("rack"), Type: mesos.Value_TEXT.Enum(), Text: &mesos.Value_Text{Value: proto.String(rack)},
		}}
	}
	_, known := s.a.agents[id]
	s.a.SetAgent(id, spec)
	if !known {
		s.a.SetFree(id, spec.Total)
	}
}

func (s *story) framework(id string, o map[string]string) {
	spec := FrameworkSpec{Roles: list(o["roles"]), Suppressed: list(o["suppressed"])}
	for _, c := range list(o["caps"]) {
		switch c {
		case "revocable":
			spec.Capabilities.Revocable = true
		case "shared":
			spec.Capabilities.Shared = true
		case "refinement":
			spec.Capabilities.Refinement = true
		case "gpu":
			spec.Capabilities.GPU = true
		case "region":
			spec.Capabilities.RegionAware = true
		default:
			s.t.Fatalf("no capability %q", c)
		}
	}
	if text, ok := o["min"]; ok {
		spec.MinAllocatable = make(map[Role][]Quantities)
		for _, role := range spec.Roles {
			spec.MinAllocatable[role] = s.alternatives(text)
		}
	}
	if rack, ok := o["rack"]; ok {
		spec.Admits = func(_ Role, agent *AgentSpec) bool {
			return slices.ContainsFunc(agent.Attributes, func(a *mesos.Attribute) bool {
				return a.GetName() == "rack" && a.GetText().GetValue() == rack
			})
		}
	}
	s.a.AddFramework(id, spec)
	s.a.ActivateFramework(id)
}
