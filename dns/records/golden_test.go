package records

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// masterState is what of a master's state makes records.
type masterState struct {
	Leader string
	Slaves []struct{ ID, PID string }
	// Frameworks without pid have the address of their host.
	Frameworks []struct {
		Name, PID, Hostname string
		Tasks               []struct {
			ID, Name  string
			SlaveID   string `json:"slave_id"`
			State     string
			Resources struct{ Ports string }
			Statuses  []struct {
				State     string
				Timestamp float64
				Labels    []struct{ Key, Value string }
				Container struct {
					Networks []struct {
						Addresses []struct {
							IP string `json:"ip_address"`
						} `json:"ip_addresses"`
					} `json:"network_infos"`
				} `json:"container_status"`
			}
			Discovery struct {
				Name  string
				Ports struct{ Ports []Port }
			}
		}
	}
}

// at reads the address out of "name@address:port".
func at(t *testing.T, pid string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(pid[strings.IndexByte(pid, '@')+1:])
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ports reads "[31000-31001, 31005-31005]".
func ports(t *testing.T, s string) (list []uint16) {
	t.Helper()
	for part := range strings.SplitSeq(strings.Trim(s, "[]"), ",") {
		from, to, ok := strings.Cut(strings.TrimSpace(part), "-")
		if !ok {
			continue
		}
		a, err := strconv.Atoi(from)
		if err != nil {
			t.Fatal(err)
		}
		b, err := strconv.Atoi(to)
		if err != nil {
			t.Fatal(err)
		}
		for ; a <= b; a++ {
			list = append(list, uint16(a))
		}
	}
	return list
}

// fill gives a zone what Mesos-DNS makes of a master's state: tasks that run on agents that are known, and so on.
func (s *masterState) fill(t *testing.T, z *Zone, masters ...string) {
	t.Helper()
	leader := at(t, s.Leader)
	c := Cluster{Leader: &Master{leader.Addr(), leader.Port()}}
	for _, m := range masters {
		a := netip.MustParseAddrPort(m)
		c.Masters = append(c.Masters, Master{a.Addr(), a.Port()})
	}
	agents := map[string]netip.AddrPort{}
	for _, a := range s.Slaves {
		agents[a.ID] = at(t, a.PID)
		c.Agents = append(c.Agents, Master{at(t, a.PID).Addr(), at(t, a.PID).Port()})
	}
	z.Replace("cluster", c.Records(z.Config().Domain))
	for _, f := range s.Frameworks {
		made := Framework{Name: f.Name}
		if f.PID != "" {
			made.Addrs, made.Port = []netip.Addr{at(t, f.PID).Addr()}, at(t, f.PID).Port()
		} else if a, err := netip.ParseAddr(f.Hostname); err == nil {
			made.Addrs = []netip.Addr{a}
		}
		z.Replace("framework/"+f.Name, made.Records(z.Config().Domain))
		for _, task := range f.Tasks {
			agent, known := agents[task.SlaveID]
			if task.State != "TASK_RUNNING" || !known {
				continue
			}
			var a Addresses
			newest := -1.0
			for _, status := range task.Statuses {
				if status.State != "TASK_RUNNING" || status.Timestamp <= newest {
					continue
				}
				newest, a = status.Timestamp, Addresses{Host: []netip.Addr{agent.Addr()}}
				for _, n := range status.Container.Networks {
					for _, ip := range n.Addresses {
						a.Netinfo = append(a.Netinfo, netip.MustParseAddr(ip.IP))
					}
				}
				for _, l := range status.Labels {
					switch l.Key {
					case "MesosContainerizer.NetworkSettings.IPAddress":
						a.Mesos = append(a.Mesos, netip.MustParseAddr(l.Value))
					case "Docker.NetworkSettings.IPAddress":
						a.Docker = append(a.Docker, netip.MustParseAddr(l.Value))
					}
				}
			}
			z.ReplaceTask(f.Name+"/"+task.ID, &Task{
				ID: task.ID, Name: task.Name, Framework: f.Name, AgentID: task.SlaveID, Agent: []netip.Addr{agent.Addr()},
				Addrs: a.Choose(DefaultIPSources()), OwnOnly: true, HostPorts: ports(t, task.Resources.Ports),
				Discovery: task.Discovery.Name, Ports: task.Discovery.Ports.Ports,
			})
		}
	}
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

func allLines(z *Zone) []string { return lines(slices.Collect(z.All())) }

// A state with the edge cases of Mesos-DNS must give what Mesos-DNS made of it, but for what is listed here.
func TestTheGoldenStateGivesTheGoldenRecords(t *testing.T) {
	var state masterState
	readJSON(t, "testdata/mesos-dns/state.json", &state)
	z := NewZone(DefaultConfig(), 1)
	state.fill(t, z, "127.0.0.9:15050", "127.0.0.1:15050")
	z.Replace("ns", Nameserver{"ns1.mesos", addrs("127.0.0.1")}.Records())

	long := strings.Repeat("x", 63)
	canonical := func(t string) string { return t + "-cq53f-s4.marathon" }
	// What a golden line is here instead, or that it is not there at all.
	instead := []struct{ golden, ours, reason string }{
		{canonical(long), canonical(long[:54]), "a label of more than 63 characters cannot be asked for, so the task's part of it is shortened"},
		{"_" + long, "_" + long[:62], "the same, for services"},
	}
	more := map[string]string{}
	for _, proto := range []string{"tcp", "udp"} {
		for _, raw := range []string{"web-ui", "web_ui"} {
			more[fmt.Sprintf("_%s._%s.marathon.mesos. SRV 8081 %s-4adns-s3.marathon.mesos.", raw, proto, raw)] = "a port with a list of protocols has each of them, beside the label that Mesos-DNS makes of the list"
		}
	}
	for _, m := range []string{"master0", "master1"} {
		more["_master._tcp.mesos. SRV 15050 "+m+".mesos."] = "the masters have a service, as the documentation of Mesos-DNS has it"
	}
	more["_agent._tcp.mesos. SRV 5051 slave.mesos."] = "agents are slaves by another name"

	var golden struct {
		Records struct{ As, AAAAs, SRVs map[string][]string }
	}
	readJSON(t, "testdata/mesos-dns/records.json", &golden)
	var want []string
	used := map[string]bool{}
	add := func(name, rest string) {
		// Mesos-DNS lower-cases questions, so names with upper case never resolve there; here they are in lower case.
		line := strings.ToLower(name) + rest
		for _, i := range instead {
			if strings.Contains(line, i.golden) {
				line = strings.ReplaceAll(line, i.golden, i.ours)
				used[i.golden] = true
			}
		}
		want = append(want, line)
	}
	for kind, set := range map[string]map[string][]string{"A": golden.Records.As, "AAAA": golden.Records.AAAAs, "SRV": golden.Records.SRVs} {
		for name, values := range set {
			for _, v := range values {
				if kind != "SRV" {
					add(name, " "+kind+" "+v)
					continue
				}
				i := strings.LastIndexByte(v, ':')
				add(name, fmt.Sprintf(" SRV %s %s", v[i+1:], strings.ToLower(v[:i])))
			}
		}
	}
	for line := range more {
		want = append(want, line)
	}
	// What is below agent is what is below slave.
	for _, line := range slices.Clone(want) {
		name, rest, _ := strings.Cut(line, " ")
		if strings.HasSuffix("."+name, ".slave.mesos.") {
			want = append(want, strings.TrimSuffix(name, "slave.mesos.")+"agent.mesos. "+rest)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, allLines(z)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	for _, i := range instead {
		if !used[i.golden] {
			t.Errorf("the difference of %q (%s) is not one", i.golden, i.reason)
		}
	}
	if len(want) < 500 {
		t.Errorf("%d golden records, want some hundreds", len(want))
	}
}

// The worked examples of the specification, section 10, from a task to the records: see testdata/examples.txt, where each
// has a line with the state, and then its records.
func TestTheWorkedExamples(t *testing.T) {
	b, err := os.ReadFile("testdata/examples.txt")
	if err != nil {
		t.Fatal(err)
	}
	examples := strings.Split(strings.TrimSpace(string(b)), "\n\n")
	if len(examples) != 7 {
		t.Errorf("%d examples, want A to G", len(examples))
	}
	for _, example := range examples {
		part := strings.Split(example, "\n")
		t.Run(strings.TrimPrefix(part[0], "# "), func(t *testing.T) {
			var state struct {
				masterState
				Masters []string
			}
			if err := json.Unmarshal([]byte(part[1]), &state); err != nil {
				t.Fatal(err)
			}
			z := NewZone(DefaultConfig(), 1)
			state.fill(t, z, state.Masters...)
			var got []string
			for _, line := range allLines(z) {
				// Names below agent repeat those below slave, and names of masters and agents are in the last example alone.
				own := len(state.Masters) > 0 || strings.Contains(line, ".marathon.")
				if own && !strings.Contains(line, ".agent.") {
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(part[2:], got); diff != "" {
				t.Errorf("records (-want +got):\n%s\n%s", diff, strings.Join(got, "\n"))
			}
		})
	}
}
