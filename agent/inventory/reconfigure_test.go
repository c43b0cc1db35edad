package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

func info(t *testing.T, res, attributes, zone string) *mesos.AgentInfo {
	t.Helper()
	r, err := resources.Parse(res, "")
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAttributes(attributes)
	if err != nil {
		t.Fatal(err)
	}
	out := &mesos.AgentInfo{Hostname: proto.String("h"), Port: proto.Int32(5051), Resources: r.Proto(), Attributes: a}
	if zone != "" {
		out.Domain = &mesos.DomainInfo{FaultDomain: &mesos.DomainInfo_FaultDomain{
			Region: &mesos.DomainInfo_FaultDomain_RegionInfo{Name: proto.String("r")}, Zone: &mesos.DomainInfo_FaultDomain_ZoneInfo{Name: &zone},
		}}
	}
	return out
}

func TestReconfigure(t *testing.T) {
	before := info(t, "cpus:4;mem:4096;ports:[1000-2000]", "rack:r1;level:2", "")
	other := info(t, "cpus:4;mem:4096;ports:[1000-2000]", "rack:r1;level:2", "")
	other.Hostname = proto.String("g")
	for _, tc := range []struct {
		name    string
		now     *mesos.AgentInfo
		changes string // joined
		refused string // by which policies
	}{
		{"nothing", info(t, "mem:4096;cpus:4;ports:[1000-1500,1501-2000]", "level:2;rack:r1", ""), "", ""},
		{"more", info(t, "cpus:5;mem:4096;ports:[1000-2000];gpus:1", "rack:r1;level:2;disk:ssd", ""), "resource cpus:4 is now cpus:5|resource gpus:1 is new|attribute disk:ssd is new", "equal"},
		{"a domain", info(t, "cpus:4;mem:4096;ports:[1000-2000]", "rack:r1;level:2", "z"), `domain none is now "r"/"z"`, "equal"},
		{"less", info(t, "cpus:4;mem:2048;ports:[1000-2000]", "rack:r1;level:2", ""), "resource mem:4096 is now mem:2048", "equal additive"},
		{"reserved", info(t, "cpus:4;mem(db):4096;ports:[1000-2000]", "rack:r1;level:2", ""), "resource mem:4096 is now mem(reservations: [(STATIC,db)]):4096", "equal additive"},
		{"gone", info(t, "cpus:4;mem:4096", "rack:r2;level:2", ""), "resource ports:[1000-2000] is gone|attribute rack:r1 is gone|attribute rack:r2 is new", "equal additive"},
		{"hostname", other, `hostname "h" is now "g"`, "equal additive"},
	} {
		for _, policy := range []string{Equal, Additive, Any} {
			changes, err := Reconfigure(policy, before, tc.now)
			if got := strings.Join(changes, "|"); got != tc.changes {
				t.Errorf("%s, %s: got %q, want %q", tc.name, policy, got, tc.changes)
			}
			if refused := strings.Contains(tc.refused, policy); refused != (err != nil) {
				t.Errorf("%s, %s: got %v", tc.name, policy, err)
			}
		}
	}
	_, err := Reconfigure(Equal, before, info(t, "cpus:4;mem:2048;ports:[1000-2000]", "rack:r1", ""))
	for _, want := range []string{"mem:4096 is now mem:2048", "level:2 is gone", "--reconfiguration_policy=any", "keep what they hold"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
	if _, err := Reconfigure("some", before, before); err == nil || !strings.Contains(err.Error(), "equal, additive and any") {
		t.Errorf("got %v", err)
	}
}

func TestInfoIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "configuration")
	if got, err := ReadInfo(path); got != nil || err != nil {
		t.Errorf("before the first start: got %v, %v", got, err)
	}
	want := info(t, "cpus:4;mem(db):4096;ports:[1-2];bugs:{a}", "rack:r1;level:2.5;p:[1-3]", "z")
	data, err := WriteInfo(want)
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadInfo(path); err != nil || !proto.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if err := os.WriteFile(path, data[:20], 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadInfo(path); got != nil || err == nil {
		t.Errorf("torn: got %v, %v", got, err)
	}
}
