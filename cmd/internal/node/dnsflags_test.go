package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/cmd/internal/flags"
)

// readDNS reads the settings of DNS as its own role does.
func readDNS(t *testing.T, file string, args, environ []string) (*dnsFlags, error) {
	t.Helper()
	set := flags.New("starling dns", "STARLING_")
	d := &dnsFlags{}
	d.register(set, dnsPort, "config")
	if file != "" {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--config", path}, args...)
	}
	if err := set.Parse(args, environ); err != nil {
		return nil, err
	}
	return d, d.read(set)
}

const wholeFile = `{"Zk": "zk://u:hunter2@h:1/m", "domain": "site.example", "port": 5300, "HTTPport": 8200, "ttl": 60, "listener": "10.0.0.1",
	"httplistener": "127.0.0.1", "resolvers": ["10.0.0.2", "10.0.0.3:5353"], "zoneresolvers": {"lan": ["10.0.0.4"]}, "timeout": 2,
	"externalon": true, "recurseon": false, "IPSources": ["docker", "host"], "enforcerfc952": true, "settruncatebit": false,
	"enumerationon": false, "SOARefresh": 11, "SOARetry": 12, "SOAExpire": 13, "SOAMinttl": 14, "SRVRecordDefaultWeight": 7}`

func TestAMesosDNSFileSetsFlags(t *testing.T) {
	d, err := readDNS(t, wholeFile, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.config()
	if err != nil {
		t.Fatal(err)
	}
	z := c.Zone
	if d.port != 5300 || d.httpPort != 8200 || d.addresses.String() != "10.0.0.1" || d.httpAddress != "127.0.0.1" || !slices.Equal(d.unused, []string{"Zk"}) {
		t.Errorf("listeners: %+v", d)
	}
	if z.Domain != "site.example" || z.TTL != 60 || z.Weight != 7 || z.Mname != "ns1.site.example" || z.Rname != "root.ns1.site.example" ||
		z.Refresh != 11 || z.Retry != 12 || z.Expire != 13 || z.Minimum != 14 || !z.NoRecursion || !z.NoTruncateBit || !z.RFC952 || z.SRVNoData {
		t.Errorf("zone: %+v", z)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:53"), netip.MustParseAddrPort("10.0.0.3:5353")}
	if f := c.Forward; f == nil || !slices.Equal(f.Resolvers, want) || f.Timeout != 2*time.Second || len(f.Zones) != 1 || f.Zones["lan"][0].String() != "10.0.0.4:53" {
		t.Errorf("forwarding: %+v", f)
	}
	if d.enumerate || d.settings.EnumerationOn || len(c.IPSources) != 2 {
		t.Errorf("enumeration %t, sources %v", d.enumerate, c.IPSources)
	}
	shown, err := json.Marshal(d.settings.Redacted())
	if err != nil || bytes.Contains(shown, []byte("hunter2")) || !bytes.Contains(shown, []byte(`"Resolvers":["10.0.0.2","10.0.0.3:5353"]`)) {
		t.Errorf("shown: %s, %v", shown, err)
	}
}

func TestTheCommandLineWinsOverTheFile(t *testing.T) {
	d, err := readDNS(t, wholeFile, strings.Fields(`--domain=Edge. --dns-port=5301 --dns-address=10.9.0.1,::1 --dns-ttl=1 --resolvers=none --zone-resolvers=
		--dns-timeout=1500ms --no-dns-external --ip-sources=host --no-enforce-rfc952 --dns-truncate`), []string{"STARLING_DNS_ENUMERATE=1", "STARLING_DNS_HTTP_PORT=8201"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.config()
	if err != nil {
		t.Fatal(err)
	}
	s := d.settings
	if d.port != 5301 || d.httpPort != 8201 || d.addresses.String() != "10.9.0.1,::1" || c.Zone.Domain != "edge" || c.Zone.Mname != "ns1.edge" || c.Zone.TTL != 1 ||
		c.Zone.NoTruncateBit || c.Zone.RFC952 || c.Forward != nil || len(c.IPSources) != 1 {
		t.Errorf("got %+v, %+v", d, c)
	}
	if s.Port != 5301 || s.Domain != "edge" || s.TTL != 1 || s.Timeout != 2 || s.ExternalOn || !s.EnumerationOn || s.SOARname != "root.ns1.edge." || len(s.Resolvers) != 0 {
		t.Errorf("shown: %+v", s)
	}
}

func TestDNSDefaults(t *testing.T) {
	d, err := readDNS(t, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.config()
	if err != nil {
		t.Fatal(err)
	}
	if c.Zone.Domain != "mesos" || c.Zone.TTL != 5 || c.Zone.Mname != "ns1.mesos" || c.Zone.NoRecursion || c.Zone.NoTruncateBit || c.Rate != 200 {
		t.Errorf("zone: %+v, rate %d", c.Zone, c.Rate)
	}
	if c.Forward == nil || c.Forward.Resolvers != nil || c.Forward.Timeout != 5*time.Second || c.Allow != nil || len(c.Transfer) != 2 {
		t.Errorf("forwarding %+v to %v, transfers to %v; want the system's resolvers, the local networks, loopback", c.Forward, c.Allow, c.Transfer)
	}
	for _, args := range [][]string{{"--resolvers=none"}, {"--dns-allow=none", "--dns-transfer", "none"}} {
		d, err := readDNS(t, "", args, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.config()
		if err != nil {
			t.Fatal(err)
		}
		if args[0] == "--resolvers=none" && (c.Forward.Resolvers == nil || len(c.Forward.Resolvers) > 0) {
			t.Errorf("none: asks %v", c.Forward.Resolvers)
		}
		if args[0] != "--resolvers=none" && (c.Allow == nil || len(c.Allow) > 0 || c.Transfer == nil || len(c.Transfer) > 0) {
			t.Errorf("none: allows %v and %v", c.Allow, c.Transfer)
		}
	}
}

func TestNetworksBesideTheLocalOnes(t *testing.T) {
	d, err := readDNS(t, "", []string{"--dns-allow=local,203.0.113.0/24"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.config()
	if err != nil {
		t.Fatal(err)
	}
	if c.Allow != nil || len(c.AllowMore) != 1 || c.AllowMore[0].String() != "203.0.113.0/24" || d.allow.String() != "local,203.0.113.0/24" {
		t.Errorf("allows %v and %v, written %q", c.Allow, c.AllowMore, d.allow.String())
	}
}

func TestSwitchesOfTheFile(t *testing.T) {
	for text, want := range map[string][2]flags.Port{
		`{"dnson": false}`: {0, 8123}, `{"httpon": false}`: {53, 0}, `{"dnson": false, "httpport": 99}`: {0, 99}, `{"port": 5353, "dnson": true}`: {5353, 8123},
		`{"listener": "0.0.0.0"}`: {53, 8123}, `{"resolvers": []}`: {53, 8123}, `{"timeout": 0}`: {53, 8123},
	} {
		d, err := readDNS(t, text, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d.port != want[0] || d.httpPort != want[1] || len(d.addresses) > 0 || d.resolvers.none || len(d.resolvers.list) > 0 || d.timeout.Std() != 5*time.Second {
			t.Errorf("%s: got %+v", text, d)
		}
	}
}

// An agent's --domain may say where it stands, in the way of Mesos; the file's domain counts then all the same.
func TestTheFilesDomainBesideAFaultDomain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dns.json")
	if err := os.WriteFile(path, []byte(`{"domain": "edge"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{
		`{"fault_domain":{"region":{"name":"r"},"zone":{"name":"z"}}}`: "edge", "site": "site",
	} {
		set, a, err := readAgent([]string{"--dns-config", path, "--domain", domain}, nil)
		if err == nil {
			err = a.dns.read(set)
		}
		if err != nil || a.dns.settings.Domain != want {
			t.Errorf("--domain=%s: %q, %v; want %q", domain, a.dns.settings.Domain, err, want)
		}
	}
}

func TestDNSRefusesSettingsThatCannotBe(t *testing.T) {
	for args, want := range map[string]string{
		"--resolvers=8.8.8":                `--resolvers: bad value "8.8.8": "8.8.8" is neither an IP address nor one with a port`,
		"--resolvers=8.8.8.8,8.8.8.8:53":   "is there twice",
		"--zone-resolvers=lan":             `"lan" is not of the form zone=resolver,resolver`,
		"--zone-resolvers=lan=x":           `--zone-resolvers: zone "lan": "x" is neither`,
		"--zone-resolvers=x.mesos=1.1.1.1": `--zone-resolvers: zone "x.mesos" and the domain mesos cover each other`,
		"--domain=a_b":                     `--domain: "a_b" has '_' in it`,
		"--domain=":                        "--domain: the name is empty",
		"--domain=mesos..":                 `--domain: "mesos..": the parts between dots have 1 to 63 characters`,
		"--dns-ttl=3000000000":             `--dns-ttl: bad value "3000000000": more than 2147483647 seconds`,
		"--dns-ttl=-1":                     "not a number of seconds",
		"--dns-ttl=5s":                     `--dns-ttl: bad value "5s": not a number of seconds, such as 5`,
		"--dns-timeout=0":                  "--dns-timeout: 0s is not more than 0 and at most 1h",
		"--dns-timeout=soon":               "not a duration",
		"--dns-rate=-1":                    "--dns-rate",
		"--dns-rate=2000000":               "--dns-rate: 2000000 is more",
		"--dns-allow=10.0.0.0/33":          `--dns-allow: bad value "10.0.0.0/33": not a network`,
		"--dns-allow=":                     "write none where nobody may",
		"--dns-transfer=local":             `--dns-transfer: bad value "local": not a network`,
		"--ip-sources=netinfo,everywhere":  `--ip-sources: "everywhere" is none of netinfo, mesos, docker and host`,
		"--ip-sources=":                    "the list of IP sources is empty",
		"--dns-health=good":                "--dns-health: ",
		"--dns-address=eth0":               `--dns-address: bad value "eth0": not an IP address`,
		"--dns-address=10.0.0.1,10.0.0.1":  "is there twice",
		"--dns-address=0.0.0.0,10.0.0.1":   "stands for all addresses",
		"--dns-http-address=web":           "--dns-http-address",
		"--config=/nowhere/mesos-dns.json": "cannot use the DNS configuration /nowhere/mesos-dns.json: open",
		"--dns-resolvers=1.1.1.1":          "unknown flag --dns-resolvers; did you mean",
	} {
		if _, err := readDNS(t, "", []string{args}, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
	_, err := readDNS(t, `{"ttl": -1, "listener": "x"}`, []string{"--dns-health=x", "--ip-sources="}, nil)
	for _, part := range []string{"config.json: ", "TTL: -1", `Listener: "x"`, "--dns-health", "--ip-sources"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("all faults at once: got %v, want %q", err, part)
		}
	}
	if _, ok := errors.AsType[*UsageError](err); !ok {
		t.Errorf("%T is no fault of the user", err)
	}
}

func TestMesosDNSFlags(t *testing.T) {
	var out bytes.Buffer
	if err := DNS(t.Context(), Streams{Out: &out, Err: io.Discard}, []string{"--config=config.json", "-version"}, nil); err != nil || out.String() != "starling "+Version()+"\n" {
		t.Errorf("-version: %q, %v", out.String(), err)
	}
	err := DNS(t.Context(), Streams{Out: io.Discard, Err: io.Discard}, []string{"-v=1", "-logtostderr", "-stderrthreshold=INFO", "-config=nothing.json"}, nil)
	if _, ok := errors.AsType[*UsageError](err); !ok || !strings.Contains(err.Error(), "nothing.json") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestTheExampleIsRead(t *testing.T) {
	data, err := os.ReadFile("../../../deploy/examples/mesos-dns.json")
	if err != nil {
		t.Fatal(err)
	}
	d, err := readDNS(t, string(data), nil, nil)
	if err != nil || len(d.unknown) > 0 || len(d.unused) > 0 {
		t.Errorf("%v, passed over: %q, %q", err, d.unknown, d.unused)
	}
}
