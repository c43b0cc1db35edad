package resolv

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	got := Parse("# made by hand\nnameserver 127.0.0.53\nnameserver 9.9.9.9 ; good\nsearch a\nsearch b c\noptions edns0\noptions timeout:1\nnonsense\n")
	want := DNS{Nameservers: []string{"127.0.0.53", "9.9.9.9"}, Search: []string{"b", "c"}, Options: []string{"edns0", "timeout:1"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if text := got.Reachable().Text(); text != "search b c\nnameserver 9.9.9.9\noptions edns0 timeout:1\n" {
		t.Errorf("got %q", text)
	}
	if d := (DNS{Nameservers: []string{"::1", "0.0.0.0", "x", "fd00::1", "127.1.2.3"}}).Reachable(); !reflect.DeepEqual(d.Nameservers, []string{"fd00::1"}) {
		t.Errorf("reachable are %v", d.Nameservers)
	}
}

func TestDefaults(t *testing.T) {
	d, err := ParseDefaults(`{"mesos": [
		{"network_mode": "CNI", "network_name": "n1", "dns": {"nameservers": ["1.1.1.1"]}},
		{"network_mode": "CNI", "dns": {"nameservers": ["2.2.2.2"], "search": ["s"]}}],
		"docker": [{"network_mode": "BRIDGE", "dns": {"nameservers": ["3.3.3.3"]}},
		{"network_mode": "USER", "network_name": "u", "dns": {"nameservers": ["4.4.4.4"]}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		ask  func() (DNS, bool)
		want string // the name server; empty for none
	}{
		{"by name", func() (DNS, bool) { return d.Mesos("n1") }, "1.1.1.1"},
		{"for all others", func() (DNS, bool) { return d.Mesos("n2") }, "2.2.2.2"},
		{"bridge", func() (DNS, bool) { return d.Docker("BRIDGE", "ignored") }, "3.3.3.3"},
		{"user", func() (DNS, bool) { return d.Docker("USER", "u") }, "4.4.4.4"},
		{"other user", func() (DNS, bool) { return d.Docker("USER", "v") }, ""},
		{"host", func() (DNS, bool) { return d.Docker("HOST", "") }, ""},
		{"nothing set", func() (DNS, bool) { return (*Defaults)(nil).Mesos("n1") }, ""},
	} {
		got, ok := tc.ask()
		if ok != (tc.want != "") || ok && got.Nameservers[0] != tc.want {
			t.Errorf("%s: got %+v, %v, want %q", tc.name, got, ok, tc.want)
		}
	}
}

// The node is asked where nothing else is set, and what is set wins.
func TestAskNode(t *testing.T) {
	set, err := ParseDefaults(`{"docker": [{"network_mode": "BRIDGE", "dns": {"nameservers": ["3.3.3.3"]}}, {"network_mode": "HOST", "dns": {"search": ["s"]}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	node := netip.MustParseAddr("10.0.0.1")
	for _, tc := range []struct {
		name, mode string
		of         *Defaults
		want       DNS
	}{
		{"set", "BRIDGE", set.AskNode(node), DNS{Nameservers: []string{"3.3.3.3"}}},
		{"no name server set", "HOST", set.AskNode(node), DNS{Nameservers: []string{"10.0.0.1"}, Search: []string{"s"}}},
		{"another network", "USER", set.AskNode(node), DNS{Nameservers: []string{"10.0.0.1"}}},
		{"nothing set at all", "BRIDGE", (*Defaults)(nil).AskNode(node), DNS{Nameservers: []string{"10.0.0.1"}}},
	} {
		if got, ok := tc.of.Docker(tc.mode, "n"); !ok || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %+v, %v, want %+v", tc.name, got, ok, tc.want)
		}
	}
	if got := set.AskNode(node).Node(); !reflect.DeepEqual(got, DNS{Nameservers: []string{"10.0.0.1"}}) {
		t.Errorf("got %+v", got)
	}
	if !set.Node().Empty() || !(*Defaults)(nil).Node().Empty() {
		t.Error("the node is asked although nobody said so")
	}
}

func TestBadDefaultsAreNamed(t *testing.T) {
	for text, wants := range map[string][]string{
		`{`: {"unexpected EOF"},
		`{"mesos": [{"network_mode": "BRIDGE", "dns": {"nameservers": ["x"]}}], "docker": [{"network_mode": "USER"}, {"network_mode": "HOST"}, {"network_mode": "HOST"}]}`: {
			`"BRIDGE" is none of CNI`, `"x" is not an IP`, "USER needs", "twice",
		},
		`{"containers": []}`: {"containers"},
	} {
		_, err := ParseDefaults(text)
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want it to name %s", text, err, want)
			}
		}
	}
}
