package config

import (
	"cmp"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestEveryKeyIsRead(t *testing.T) {
	data, err := os.ReadFile("testdata/mesos-dns.json")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		RefreshSeconds: 60, Port: 53, Timeout: 5, StateTimeoutSeconds: 300, ZkDetectionTimeout: 30, HTTPPort: 8124, TTL: 60,
		SRVRecordDefaultWeight: 3, SOARefresh: 61, SOARetry: 601, SOAExpire: 86401, SOAMinttl: 62,
		SOAMname: "ns1.example.com.", SOARname: "root.example.com.",
		Masters:       []string{"10.101.160.15:5050", "10.101.160.16:5050"},
		ZoneResolvers: map[string][]string{"weave": {"172.17.0.1"}, "example.com.": {"10.0.0.2", "[2001:db8::1]:53"}},
		Resolvers:     []string{"169.254.169.254", "10.0.0.1:5353"}, IPSources: []string{"mesos", "host"},
		Zk: "zk://admin:hunter2@10.101.160.15:2181/mesos", Domain: "edge", Listener: "10.101.160.16", HTTPListener: "127.0.0.1",
		DNSOn: true, HTTPOn: true, ExternalOn: true, EnforceRFC952: true, CertFile: "/c.pem", KeyFile: "/k.pem",
		MesosCredentials: Credentials{Principal: "admin", Secret: "hunter2"}, MesosAuthentication: "basic",
	}
	if !reflect.DeepEqual(f.Config, want) {
		t.Errorf("got  %+v\nwant %+v", f.Config, want)
	}
	if !slices.Equal(f.Unknown, []string{"email", "ns"}) {
		t.Errorf("unknown keys %q, want those of old files", f.Unknown)
	}
	if len(f.Unused) != 12 || !slices.Contains(f.Unused, "zk") || slices.Contains(f.Unused, "ttl") {
		t.Errorf("unused keys %q, want the 12 about masters", f.Unused)
	}
	for _, k := range f.keys() {
		if !f.Given(k.name) {
			t.Errorf("%s is not given: the test's file does not have every key", k.name)
		}
	}
	shown, err := json.Marshal(f.Redacted())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(shown), "hunter2") || !strings.Contains(string(shown), `"Zk":"zk://10.101.160.15:2181/mesos"`) ||
		!strings.Contains(string(shown), `"MesosCredentials":{"Principal":"admin","Secret":""}`) {
		t.Errorf("shown: %s", shown)
	}
}

// The sample that Mesos-DNS has shipped since its first releases, keys as they stand there.
func TestTheOldSampleIsRead(t *testing.T) {
	f, err := Parse([]byte(`{"zk": "zk://127.0.0.1:2181/mesos", "masters": ["127.0.0.1:5050"], "refreshSeconds": 60, "ttl": 60, "domain": "mesos",
		"port": 8053, "resolvers": ["8.8.8.8"], "timeout": 5, "listener": "0.0.0.0", "email": "root.mesos-dns.mesos", "dnson": true,
		"httpon": true, "httpport": 8123, "externalon": true}`))
	if err != nil || f.Port != 8053 || f.TTL != 60 || f.SOAMname != "ns1.mesos." || f.SOARname != "root.ns1.mesos." {
		t.Errorf("got %+v, %v", f, err)
	}
}

func TestDefaults(t *testing.T) {
	f, err := Parse([]byte("\xef\xbb\xbf{\"DOMAIN\": \"Site-A.example\", \"Resolvers\": null, \"TTL\": null}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Domain, want.SOAMname, want.SOARname = "site-a.example", "ns1.site-a.example.", "root.ns1.site-a.example."
	if !reflect.DeepEqual(f.Config, want) {
		t.Errorf("got  %+v\nwant %+v", f.Config, want)
	}
	if !f.Given("Domain") || f.Given("TTL") || f.Given("Resolvers") {
		t.Error("null counts as given, or a key of another case does not")
	}
}

// TestKeysInOrder holds the order in which clients of /v1/config have always seen them.
func TestKeysInOrder(t *testing.T) {
	want := strings.Split("RefreshSeconds, Port, Timeout, StateTimeoutSeconds, ZkDetectionTimeout, HttpPort, TTL, SRVRecordDefaultWeight, "+
		"SOASerial, SOARefresh, SOARetry, SOAExpire, SOAMinttl, SOAMname, SOARname, Masters, ZoneResolvers, Resolvers, IPSources, Zk, "+
		"Domain, File, Listener, HTTPListener, RecurseOn, DnsOn, HttpOn, ExternalOn, EnforceRFC952, SetTruncateBit, EnumerationOn, "+
		"MesosHTTPSOn, CACertFile, CertFile, KeyFile, MesosCredentials, IAMConfigFile, MesosAuthentication", ", ")
	var got []string
	for f := range reflect.TypeFor[Config]().Fields() {
		got = append(got, cmp.Or(f.Tag.Get("json"), f.Name))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestFaultsNameKeyAndValue(t *testing.T) {
	for text, want := range map[string]string{
		``:                                            "it is empty",
		`[]`:                                          "it is not a JSON object",
		"{\n\"ttl\": 5,,}":                            "line 2",
		`{} {}`:                                       "something follows",
		`{"ttl": "60"}`:                               `ttl: "60" is not a whole number of seconds`,
		`{"TTL": 1.5}`:                                "TTL: 1.5 is not a whole number",
		`{"ttl": -1}`:                                 "TTL: -1 is not between 0 and 2147483647",
		`{"ttl": 99999999999}`:                        "99999999999",
		`{"port": 65536}`:                             "Port: 65536 is not between 0 and 65535",
		`{"httpport": -1}`:                            "HttpPort: -1",
		`{"dnson": "yes"}`:                            `dnson: "yes" is not true or false`,
		`{"dnson": false,"httpon":false}`:             "DnsOn and HttpOn are both false",
		`{"refreshSeconds": 0}`:                       "RefreshSeconds: 0",
		`{"stateTimeoutSeconds": 0}`:                  "StateTimeoutSeconds: 0",
		`{"zkDetectionTimeout": -1}`:                  "ZkDetectionTimeout: -1",
		`{"timeout": -5}`:                             "Timeout: -5",
		`{"SOARefresh": -1}`:                          "SOARefresh: -1 is not a whole number of seconds",
		`{"SOAMinttl": 4294967295}`:                   "SOAMinttl: 4294967295",
		`{"SRVRecordDefaultWeight": 65536}`:           "SRVRecordDefaultWeight: 65536",
		`{"domain": "a_b"}`:                           `Domain: "a_b" has '_' in it`,
		`{"domain": ""}`:                              "Domain: the name is empty",
		`{"domain": "a..b"}`:                          `Domain: "a..b"`,
		`{"SOAMname": "a b"}`:                         `SOAMname: "a b."`,
		`{"listener": "eth0"}`:                        `Listener: "eth0" is not an IP address`,
		`{"httpListener": "1.2.3"}`:                   `HTTPListener: "1.2.3" is not an IP address`,
		`{"resolvers": "8.8.8.8"}`:                    `resolvers: "8.8.8.8" is not a list`,
		`{"resolvers": ["8.8.8"]}`:                    `Resolvers: "8.8.8" is neither`,
		`{"resolvers": ["8.8.8.8:0"]}`:                `Resolvers: "8.8.8.8:0": 0 is not a port`,
		`{"resolvers": ["8.8.8.8:70000"]}`:            `Resolvers: "8.8.8.8:70000" is neither`,
		`{"resolvers": ["0.0.0.0"]}`:                  `nobody answers at 0.0.0.0`,
		`{"resolvers": ["8.8.8.8", "8.8.8.8:53"]}`:    `Resolvers: "8.8.8.8:53" is there twice`,
		`{"zoneResolvers": {"weave": []}}`:            `ZoneResolvers: zone "weave" has no resolvers`,
		`{"zoneResolvers": {"weave": ["x"]}}`:         `ZoneResolvers: zone "weave": "x" is neither`,
		`{"zoneResolvers": {"a b": ["1.1.1.1"]}}`:     `zone "a b"`,
		`{"zoneResolvers": {"mesos": ["1.1.1.1"]}}`:   `zone "mesos" and the domain mesos cover each other`,
		`{"zoneResolvers": {"x.mesos": ["1.1.1.1"]}}`: `cover each other`,
		`{"domain": "x.mesos", "zoneResolvers": {"Mesos.": ["1.1.1.1"]}}`: `zone "Mesos." and the domain x.mesos cover each other`,
		`{"zoneResolvers": {"b.c": ["1.1.1.1"], "a.B.c.": ["1.1.1.1"]}}`:  `cover each other`,
		`{"zoneResolvers": {"b.c": ["1.1.1.1"], "B.C": ["1.1.1.1"]}}`:     `cover each other`,
		`{"IPSources": []}`:                          "IPSources: the list of IP sources is empty",
		`{"IPSources": ["host", "nowhere", "host"]}`: "IPSources: \"nowhere\" is none of netinfo, mesos, docker and host\n\"host\" is there twice",
		`{"masters": ["m1:5050"]}`:                   `Masters: "m1:5050" is not IP:port`,
		`{"masters": ["1.1.1.1:1", "1.1.1.1:1"]}`:    `Masters: "1.1.1.1:1" is there twice`,
		`{"zk": "10.0.0.1:2181/mesos"}`:              `Zk: "10.0.0.1:2181/mesos" is not of the form`,
		`{"zk": "zk://a:b/mesos"}`:                   `"a:b" is not host:port`,
		`{"certFile": "/c"}`:                         `CertFile "/c" and KeyFile ""`,
		`{"keyFile": "/k"}`:                          "either both are needed or none",
		`{"mesosAuthentication": "digest"}`:          `MesosAuthentication: "digest" is neither basic nor iam`,
		`{"mesosCredentials": "x"}`:                  "mesosCredentials: the value is not an object",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	_, err := Parse([]byte(`{"ttl": -1, "listener": "x", "IPSources": ["y"]}`))
	for _, key := range []string{"TTL: ", "Listener: ", "IPSources: "} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("all faults at once: got %v, want one of %s", err, key)
		}
	}
}

func TestSecretsStayOutOfErrors(t *testing.T) {
	for _, text := range []string{
		`{"zk": "admin:hunter2@h:2181"}`, `{"zk": "zk://admin:hunter2@h/mesos"}`, `{"zk": "zk://a:hunter2@h:1/"}`, `{"zk": ["hunter2"]}`,
		`{"mesosCredentials": {"principal": 1, "secret": "hunter2"}}`, `{"mesosCredentials": ["hunter2"]}`, `{"zk":"zk://u:hun@ter2@h"}`,
	} {
		if _, err := Parse([]byte(text)); err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2@") {
			t.Errorf("%s: got %v, want an error without the secret", text, err)
		}
	}
}

func TestSplitZones(t *testing.T) {
	got, err := SplitZones(" weave=172.17.0.1 ; example.com=10.0.0.2:5353, [::1]:53;")
	want := map[string][]string{"weave": {"172.17.0.1"}, "example.com": {"10.0.0.2:5353", "[::1]:53"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for text, part := range map[string]string{"weave": "zone=resolver", "a=1.1.1.1;a=2.2.2.2": "twice"} {
		if _, err := SplitZones(text); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: got %v, want %q", text, err, part)
		}
	}
}

func FuzzParse(f *testing.F) {
	data, err := os.ReadFile("testdata/mesos-dns.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"zoneResolvers": {"a": ["1.1.1.1"]}, "zk": "zk://@@/"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			return
		}
		// What was read shows itself in a form that is read again, to the same.
		shown, err := json.Marshal(file.Config)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(shown)
		if err != nil {
			t.Fatalf("%s\n%v", shown, err)
		}
		if file.Domain != again.Domain || file.TTL != again.TTL || file.SOARname != again.SOARname {
			t.Errorf("%+v is not %+v", again.Config, file.Config)
		}
	})
}
