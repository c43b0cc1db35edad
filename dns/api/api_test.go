package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"starling/dns"
	"starling/dns/config"
	"starling/dns/forward"
	"starling/dns/records"
	"starling/gossip/catalog"
	"starling/gossip/record"
)

// serve runs a server with a zone that is filled by the caller, and returns the address of its API.
func serve(t *testing.T, settings config.Config, fill func(z *records.Zone)) string {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	both, err := dns.Listen(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	zone, metrics := records.DefaultConfig(), prometheus.NewRegistry()
	zone.TTL, zone.Domain = 60, settings.Domain
	resolvers, err := config.ParseResolvers(settings.Resolvers)
	if err != nil {
		t.Fatal(err)
	}
	s, err := dns.New(dns.Config{
		Forward: &forward.Config{Resolvers: append([]netip.AddrPort{}, resolvers...)},
		Source:  frameworks(t), Zone: zone, Listen: []*dns.Listener{both}, Log: slog.New(slog.DiscardHandler), Metrics: metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	fill(s.Zone())
	s.Zone().Commit(0)
	ctx, cancel := context.WithCancel(context.Background())
	l := listen()
	done := make(chan error, 2)
	go func() { done <- s.Run(ctx) }()
	go func() { done <- New(s, Config{Settings: settings, Metrics: metrics}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	base := "http://" + l.Addr().String()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if res := get(t, base+"/health", nil); res.status == http.StatusOK {
			return base
		} else if time.Now().After(deadline) {
			t.Fatalf("not healthy: %d %s", res.status, res.body)
		}
	}
}

// frameworks is what a mesh knows in which two masters have led: of "old" nobody has heard since.
func frameworks(t *testing.T) *record.Map {
	t.Helper()
	m := record.NewMap("reader", 1)
	for node, epoch := range map[string]uint64{"m1": 3, "m2": 2} {
		owner := record.NewMap(node, 1)
		set := func(key string, v proto.Message) {
			data, err := proto.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			owner.Set(time.Unix(1, 0), record.Assignment{Key: key, Value: data})
		}
		set(catalog.PrefixFramework, &catalog.Frameworks{Epoch: epoch, Count: 2})
		if node == "m1" {
			set(catalog.PrefixFramework+"marathon", &catalog.Framework{Name: "marathon"})
			set(catalog.PrefixFramework+"idle", &catalog.Framework{Name: "Chronos <1>"})
		} else {
			set(catalog.PrefixFramework+"old", &catalog.Framework{Name: "old"})
		}
		if _, err := m.Apply(time.Unix(1, 0), owner.Delta(node, 0)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

type response struct {
	status int
	body   string
	header http.Header
}

// get asks for a page with the headers given, and no others.
func get(t *testing.T, url string, header http.Header) response {
	t.Helper()
	return do(t, http.MethodGet, url, header)
}

func do(t *testing.T, method, url string, header http.Header) response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	client := http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{res.StatusCode, string(body), res.Header}
}

func addrs(list ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range list {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// The tasks of the worked examples A to E of the specification.
var (
	exampleA = records.Task{
		ID: "web.id-0", Name: "web", Framework: "marathon", AgentID: "x-S0", Agent: addrs("10.1.0.1"), HostPorts: []uint16{31000, 31001},
	}
	exampleC = records.Task{
		ID: "disc-name-only.id-0", Name: "disc-name-only", Framework: "marathon", AgentID: "x-S3", Agent: addrs("10.1.0.4"),
		Addrs: addrs("10.200.0.2", "fd00::2"), Discovery: "Web_UI",
		Ports: []records.Port{{Number: 8080, Name: "Admin_Port", Protocol: "TCP"}, {Number: 8081, Protocol: "udp,tcp"}, {Number: 8082, Name: "x"}},
	}
	exampleD1 = records.Task{ID: "dup.1", Name: "dup", Framework: "marathon", AgentID: "x-S8", Agent: addrs("10.1.0.9")}
	exampleD2 = records.Task{ID: "dup.2", Name: "dup", Framework: "marathon", AgentID: "x-S9", Agent: addrs("10.1.0.10")}
	exampleE  = records.Task{ID: "v6.1", Name: "v6", Framework: "marathon", AgentID: "x-S20", Agent: addrs("2001:db8::20"), HostPorts: []uint16{31000}}
)

func fillWith(tasks ...records.Task) func(z *records.Zone) {
	return func(z *records.Zone) {
		for _, task := range tasks {
			z.ReplaceTask("node\x00"+catalog.TaskKey(task.Framework, task.ID), &task)
		}
	}
}

func TestPagesByteForByte(t *testing.T) {
	base := serve(t, config.Default(), fillWith(exampleA, exampleC, exampleD1, exampleD2, exampleE))
	for path, want := range map[string]string{
		"/v1/version": `{
  "Service": "Mesos-DNS",
  "URL": "https://github.com/mesosphere/mesos-dns",
  "Version": "v0.7.0"
 }`,
		"/v1/hosts/web.marathon.mesos": `[
  {
   "host": "web.marathon.mesos.",
   "ip": "10.1.0.1"
  }
 ]`,
		"/v1/hosts/nobody.mesos": `[
  {
   "host": "",
   "ip": ""
  }
 ]`,
		// A first, then AAAA.
		"/v1/hosts/web-ui.marathon.mesos": `[
  {
   "host": "web-ui.marathon.mesos.",
   "ip": "10.200.0.2"
  },
  {
   "host": "web-ui.marathon.mesos.",
   "ip": "fd00::2"
  }
 ]`,
		"/v1/hosts/dup.marathon.mesos": `[
  {
   "host": "dup.marathon.mesos.",
   "ip": "10.1.0.9"
  },
  {
   "host": "dup.marathon.mesos.",
   "ip": "10.1.0.10"
  }
 ]`,
		"/v1/services/_web._tcp.marathon.mesos": `[
  {
   "service": "_web._tcp.marathon.mesos",
   "host": "web-8epxj-s0.marathon.slave.mesos.",
   "ip": "10.1.0.1",
   "port": "31000"
  },
  {
   "service": "_web._tcp.marathon.mesos",
   "host": "web-8epxj-s0.marathon.slave.mesos.",
   "ip": "10.1.0.1",
   "port": "31001"
  }
 ]`,
		// One for each family of the target.
		"/v1/services/_Admin-Port._web-ui._tcp.marathon.mesos.": `[
  {
   "service": "_Admin-Port._web-ui._tcp.marathon.mesos.",
   "host": "web-ui-4adns-s3.marathon.mesos.",
   "ip": "10.200.0.2",
   "port": "8080"
  },
  {
   "service": "_Admin-Port._web-ui._tcp.marathon.mesos.",
   "host": "web-ui-4adns-s3.marathon.mesos.",
   "ip": "fd00::2",
   "port": "8080"
  }
 ]`,
		"/v1/services/_nobody._tcp.marathon.mesos": `[
  {
   "service": "",
   "host": "",
   "ip": "",
   "port": ""
  }
 ]`,
	} {
		res := get(t, base+path, nil)
		if res.status != http.StatusOK || res.body != want || res.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %q\n%s\nwant\n%s", path, res.status, res.header.Get("Content-Type"), res.body, want)
		}
	}
	// What is asked for the same.
	same := get(t, base+"/v1/hosts/web.marathon.mesos", nil).body
	for _, name := range []string{"web.marathon.mesos.", "WEB.Marathon.mesos", "web.*.marathon.mesos", "web.marathon.*.mesos.*.", "%77eb.marathon.mesos"} {
		if got := get(t, base+"/v1/hosts/"+name, nil).body; got != same {
			t.Errorf("%s: %s", name, got)
		}
	}
	for _, path := range []string{"/v1/services/web.marathon.mesos", "/v1/hosts/_web._tcp.marathon.mesos", "/v1/hosts/.", "/v1/hosts/a..b", "/v1/hosts/mesos"} {
		if res := get(t, base+path, nil); res.status != http.StatusOK || !strings.Contains(res.body, `": ""`) {
			t.Errorf("%s: %d %s; want one empty record", path, res.status, res.body)
		}
	}
}

func TestStatusCodes(t *testing.T) {
	base := serve(t, config.Default(), fillWith(exampleA))
	for _, tc := range []struct {
		method, path string
		status       int
		text         string
	}{
		{"GET", "/v1/hosts/web.marathon.mesos/ports", 501, "To be implemented..."},
		{"GET", "/v1/nothing", 404, "404: Page Not Found"},
		{"GET", "/", 404, "404: Page Not Found"},
		{"GET", "/v1/hosts", 404, "404: Page Not Found"},
		{"POST", "/v1/nothing", 404, "404: Page Not Found"},
		{"POST", "/v1/version", 405, "405: Method Not Allowed"},
		{"PUT", "/v1/hosts/web.marathon.mesos", 405, "405: Method Not Allowed"},
		{"DELETE", "/v1/axfr", 405, "405: Method Not Allowed"},
		{"HEAD", "/v1/config", 405, ""},
		{"HEAD", "/health", 200, ""},
		{"GET", "/health", 200, ""},
		{"GET", "/ready", 200, ""},
	} {
		res := do(t, tc.method, base+tc.path, nil)
		if res.status != tc.status || res.body != tc.text {
			t.Errorf("%s %s: %d %q; want %d %q", tc.method, tc.path, res.status, res.body, tc.status, tc.text)
		}
		if tc.status == 405 && res.header.Get("Allow") != "GET" {
			t.Errorf("%s %s: Allow is %q", tc.method, tc.path, res.header.Get("Allow"))
		}
		if tc.text != "" && !strings.HasPrefix(res.header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s %s: %q is no text", tc.method, tc.path, res.header.Get("Content-Type"))
		}
	}
	res := get(t, base+"/metrics", nil)
	if res.status != http.StatusOK || !strings.Contains(res.body, "# HELP starling_dns_") {
		t.Errorf("/metrics: %d %.200s", res.status, res.body)
	}
}

func TestAccept(t *testing.T) {
	base := serve(t, config.Default(), fillWith())
	for accept, want := range map[string]int{
		"*/*": 200, "application/json": 200, "application/*;q=0.2": 200, "text/html, application/json;q=0.9": 200, "": 200, " , ": 200,
		"text/html,*/*;q=0.1": 200, "APPLICATION/JSON; charset=utf-8": 200, "application/json;q=soon": 200, "application/*;q=0,application/json": 200,
		"text/html": 406, "application/xml;q=0.9": 406, "application/json;q=0": 406, "*/*;q=0": 406, "application/json;q=0.0, */*": 406,
		"text/*, application/*; q=0": 406, "application/jsonp": 406, "*": 200,
	} {
		res := get(t, base+"/v1/version", http.Header{"Accept": {accept}})
		if res.status != want || want == 406 && res.body != "406: Not Acceptable" {
			t.Errorf("Accept: %q: %d %q, want %d", accept, res.status, res.body, want)
		}
	}
	if res := get(t, base+"/v1/version", http.Header{"Accept": {"text/html", "application/json"}}); res.status != http.StatusOK {
		t.Errorf("two headers: %d", res.status)
	}
	if res := do(t, "POST", base+"/v1/version", http.Header{"Accept": {"text/html"}}); res.status != http.StatusMethodNotAllowed {
		t.Errorf("another method and another type: %d, want 405", res.status)
	}
}

func TestConfigIsShownWithoutSecrets(t *testing.T) {
	data, err := os.ReadFile("../config/testdata/mesos-dns.json")
	if err != nil {
		t.Fatal(err)
	}
	f, err := config.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	base := serve(t, f.Config, fillWith(exampleA))
	res := get(t, base+"/v1/config", nil)
	want, err := os.ReadFile("testdata/config.json")
	if err != nil {
		t.Fatal(err)
	}
	var serial struct{ SOASerial uint32 }
	if err := json.Unmarshal([]byte(res.body), &serial); err != nil || serial.SOASerial == 0 {
		t.Fatalf("%s: %v", res.body, err)
	}
	got := strings.Replace(res.body, strings.TrimSpace(line(res.body, "SOASerial")), `"SOASerial": 1,`, 1)
	if got != strings.TrimSuffix(string(want), "\n") || strings.Contains(got, "hunter2") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func line(text, part string) string {
	for l := range strings.Lines(text) {
		if strings.Contains(l, part) {
			return l
		}
	}
	return ""
}

// The list of everything has the form of Mesos-DNS to the byte, but for the order of names and values: the file was written by it.
func TestAXFRByteForByte(t *testing.T) {
	type sets struct{ As, AAAAs, SRVs map[string][]string }
	type list struct {
		TTL, Serial, RefreshSeconds uint32
		Mname, Rname, Domain        string
		Records                     sets
	}
	file, err := os.ReadFile("testdata/mesos-dns-axfr.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden list
	if err := json.Unmarshal(file, &golden); err != nil {
		t.Fatal(err)
	}
	var all []records.Record
	for kind, set := range map[records.Type]map[string][]string{records.A: golden.Records.As, records.AAAA: golden.Records.AAAAs, records.SRV: golden.Records.SRVs} {
		for name, values := range set {
			// Names that no query can ask for are not kept, see the specification's section 3.
			if _, ok := wireName(name); !ok {
				delete(set, name)
				continue
			}
			slices.Sort(values)
			for _, v := range values {
				r := records.Record{Name: name, Type: kind}
				if kind == records.SRV {
					target, port, _ := strings.Cut(v, ":")
					r.Target, r.Port = target, number(t, port)
				} else {
					r.Addr = netip.MustParseAddr(v)
				}
				all = append(all, r)
			}
		}
	}
	settings := config.Default()
	settings.RefreshSeconds = 5
	base := serve(t, settings, func(z *records.Zone) { z.Replace("golden", all) })
	res := get(t, base+"/v1/axfr", nil)
	var got list
	if err := json.Unmarshal([]byte(res.body), &got); err != nil {
		t.Fatalf("%v: %.200s", err, res.body)
	}
	for _, set := range []map[string][]string{got.Records.As, got.Records.AAAAs, got.Records.SRVs} {
		for name := range set {
			if strings.HasSuffix("."+name, ".agent.mesos.") { // which Mesos-DNS does not have
				delete(set, name)
			}
		}
	}
	golden.Serial = got.Serial
	if diff := cmp.Diff(golden, got); diff != "" {
		t.Errorf("-Mesos-DNS +here:\n%.3000s", diff)
	}
	for _, body := range []string{string(file), res.body} {
		var form bytes.Buffer
		if err := json.Indent(&form, []byte(body), " ", " "); err != nil || form.String() != body {
			t.Errorf("%v: the form is not that of Mesos-DNS: %.500s", err, body)
		}
	}
	if res.header.Get("Content-Type") != "application/json" || res.status != http.StatusOK {
		t.Errorf("%d %v", res.status, res.header)
	}
}

// wireName tells whether a name can be asked for, in the case in which it is kept.
func wireName(name string) (string, bool) {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 {
			return "", false
		}
	}
	return name, name == strings.ToLower(name)
}

func number(t *testing.T, s string) uint16 {
	t.Helper()
	var n uint16
	if err := json.Unmarshal([]byte(s), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The frameworks by name, those without tasks too; a record stands at the first task that has it, and null where all have
// been seen.
func TestEnumerateByteForByte(t *testing.T) {
	again := exampleD1
	again.ID = "dup.1" // the same records from another framework of the same name
	again.Framework = "Marathon"
	base := serve(t, config.Default(), fillWith(exampleA, exampleD1, exampleD2, again))
	res := get(t, base+"/v1/enumerate", nil)
	want, err := os.ReadFile("testdata/enumerate.json")
	if err != nil {
		t.Fatal(err)
	}
	if res.body != strings.TrimSuffix(string(want), "\n") || res.header.Get("Content-Type") != "application/json" {
		t.Errorf("got\n%s\nwant\n%s", res.body, want)
	}
	var form bytes.Buffer
	if err := json.Indent(&form, []byte(res.body), " ", " "); err != nil || form.String() != res.body {
		t.Errorf("%v: the form is not that of Mesos-DNS", err)
	}
}

func TestAnEmptyZone(t *testing.T) {
	base := serve(t, config.Default(), fillWith())
	if res := get(t, base+"/v1/axfr", nil); !strings.Contains(res.body, "   \"AAAAs\": {},\n   \"SRVs\": {}\n  }\n }") {
		t.Errorf("axfr: %s", res.body)
	}
}

func TestListsCanBeSwitchedOff(t *testing.T) {
	settings := config.Default()
	settings.EnumerationOn = false
	base := serve(t, settings, fillWith(exampleA))
	for _, path := range []string{"/v1/axfr", "/v1/enumerate"} {
		if res := get(t, base+path, nil); res.status != http.StatusNotFound || res.body != "404: Page Not Found" {
			t.Errorf("%s: %d %s", path, res.status, res.body)
		}
	}
}

func TestListsArePacked(t *testing.T) {
	base := serve(t, config.Default(), fillWith(exampleA, exampleC))
	plain := get(t, base+"/v1/axfr", nil)
	res := get(t, base+"/v1/axfr", http.Header{"Accept-Encoding": {"gzip"}})
	z, err := gzip.NewReader(strings.NewReader(res.body))
	if err != nil || res.header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("%v, %v", err, res.header)
	}
	body, err := io.ReadAll(z)
	if err != nil || string(body) != plain.body || plain.header.Get("Content-Encoding") != "" {
		t.Errorf("%v: %d bytes unpacked, %d plain, %v", err, len(body), len(plain.body), plain.header)
	}
	if res := get(t, base+"/v1/axfr", http.Header{"Accept-Encoding": {"gzip;q=0"}}); res.body != plain.body {
		t.Errorf("packed for one who does not take it: %v", res.header)
	}
}
