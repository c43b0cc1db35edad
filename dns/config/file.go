package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// File is what a configuration file says.
type File struct {
	// Config has the file's values, and defaults where it has none.
	Config
	// Unused are the keys that were given, as the file spells them, and mean nothing here: those about finding a master.
	Unused []string
	// Unknown are the keys that were given and that Mesos-DNS does not know either.
	Unknown []string

	given map[string]bool // by key
}

// Given tells whether the file says something of a key, which is written as Config has it.
func (f *File) Given(key string) bool { return f.given[strings.ToLower(key)] }

// MaxSize bounds a file, in bytes.
const MaxSize = 1 << 20

// key is one setting: where its value goes, what a value looks like in words, and whether it means something here.
type key struct {
	name   string
	to     any
	is     string
	unused bool
}

const (
	number  = "a whole number"
	port    = "a port, a whole number from 0 to 65535"
	text    = "a text"
	boolean = "true or false"
	list    = "a list of texts"
)

// keys are all settings of a configuration, those of the file's own place and of the running serial number left out.
func (c *Config) keys() []key {
	const seconds = "a whole number of seconds"
	return []key{
		{"RefreshSeconds", &c.RefreshSeconds, seconds, true},
		{"Port", &c.Port, port, false},
		{"Timeout", &c.Timeout, seconds, false},
		{"StateTimeoutSeconds", &c.StateTimeoutSeconds, seconds, true},
		{"ZkDetectionTimeout", &c.ZkDetectionTimeout, seconds, true},
		{"HttpPort", &c.HTTPPort, port, false},
		{"TTL", &c.TTL, seconds, false},
		{"SRVRecordDefaultWeight", &c.SRVRecordDefaultWeight, number, false},
		{"SOARefresh", &c.SOARefresh, seconds, false},
		{"SOARetry", &c.SOARetry, seconds, false},
		{"SOAExpire", &c.SOAExpire, seconds, false},
		{"SOAMinttl", &c.SOAMinttl, seconds, false},
		{"SOAMname", &c.SOAMname, text, false},
		{"SOARname", &c.SOARname, text, false},
		{"Masters", &c.Masters, list, true},
		{"ZoneResolvers", &c.ZoneResolvers, "an object of zones with lists of resolvers", false},
		{"Resolvers", &c.Resolvers, list, false},
		{"IPSources", &c.IPSources, list, false},
		{"Zk", &c.Zk, text, true},
		{"Domain", &c.Domain, text, false},
		{"Listener", &c.Listener, text, false},
		{"HTTPListener", &c.HTTPListener, text, false},
		{"RecurseOn", &c.RecurseOn, boolean, false},
		{"DnsOn", &c.DNSOn, boolean, false},
		{"HttpOn", &c.HTTPOn, boolean, false},
		{"ExternalOn", &c.ExternalOn, boolean, false},
		{"EnforceRFC952", &c.EnforceRFC952, boolean, false},
		{"SetTruncateBit", &c.SetTruncateBit, boolean, false},
		{"EnumerationOn", &c.EnumerationOn, boolean, false},
		{"MesosHTTPSOn", &c.MesosHTTPSOn, boolean, true},
		{"CACertFile", &c.CACertFile, text, true},
		{"CertFile", &c.CertFile, text, true},
		{"KeyFile", &c.KeyFile, text, true},
		{"MesosCredentials", &c.MesosCredentials, "an object with principal and secret", true},
		{"IAMConfigFile", &c.IAMConfigFile, text, true},
		{"MesosAuthentication", &c.MesosAuthentication, text, true},
	}
}

// Parse reads a file. The error tells all that is wrong with it.
func Parse(data []byte) (*File, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	var all map[string]json.RawMessage
	d := json.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	if err := d.Decode(&all); err != nil {
		return nil, notAnObject(data, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON object")
	}
	f := &File{Config: Default(), given: map[string]bool{}}
	known := map[string]key{"file": {name: "File"}, "soaserial": {name: "SOASerial"}} // shown by Mesos-DNS, not read
	for _, k := range f.keys() {
		known[strings.ToLower(k.name)] = k
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(all)) {
		k, ok := known[strings.ToLower(name)]
		switch value := all[name]; {
		case !ok:
			f.Unknown = append(f.Unknown, name)
		case k.to == nil, string(value) == "null":
		default:
			f.given[strings.ToLower(name)] = true
			if k.unused {
				f.Unused = append(f.Unused, name)
			}
			if err := json.Unmarshal(value, k.to); err != nil {
				faults = append(faults, fmt.Errorf("%s: %s is not %s", name, shown(k, value), k.is))
			}
		}
	}
	if len(faults) == 0 {
		f.settle()
		faults = f.faults()
	}
	return f, errors.Join(faults...)
}

// shown is a value for an error: short, and never a secret.
func shown(k key, value json.RawMessage) string {
	switch s := string(value); {
	case k.name == "MesosCredentials", k.name == "Zk":
		return "the value"
	case len(s) <= 60:
		return s
	default:
		return s[:60] + "..."
	}
}

// notAnObject says where a file ends to be JSON.
func notAnObject(data []byte, err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		before := data[:min(int64(len(data)), syntax.Offset)]
		return fmt.Errorf("it is not JSON: line %d: %w", 1+bytes.Count(before, []byte("\n")), err)
	}
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	}
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return errors.New("it is not a JSON object")
	}
	return fmt.Errorf("it is not JSON: %w", err)
}

// faults lists what cannot be, besides types.
func (c *Config) faults() []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	check := func(name string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}
	for _, p := range []struct {
		name  string
		value int
	}{{"Port", c.Port}, {"HttpPort", c.HTTPPort}} {
		if p.value < 0 || p.value > math.MaxUint16 {
			fault("%s: %d is not between 0 and 65535", p.name, p.value)
		}
	}
	for _, n := range []struct {
		name             string
		value, low, high int
	}{
		{"RefreshSeconds", c.RefreshSeconds, 1, math.MaxInt32},
		{"Timeout", c.Timeout, 0, 3600},
		{"StateTimeoutSeconds", c.StateTimeoutSeconds, 1, math.MaxInt32},
		{"ZkDetectionTimeout", c.ZkDetectionTimeout, 0, math.MaxInt32},
		{"TTL", c.TTL, 0, math.MaxInt32},
		{"SRVRecordDefaultWeight", c.SRVRecordDefaultWeight, 0, math.MaxUint16},
		{"SOARefresh", int(c.SOARefresh), 0, math.MaxInt32},
		{"SOARetry", int(c.SOARetry), 0, math.MaxInt32},
		{"SOAExpire", int(c.SOAExpire), 0, math.MaxInt32},
		{"SOAMinttl", int(c.SOAMinttl), 0, math.MaxInt32},
	} {
		if n.value < n.low || n.value > n.high {
			fault("%s: %d is not between %d and %d", n.name, n.value, n.low, n.high)
		}
	}
	if !c.DNSOn && !c.HTTPOn {
		fault("DnsOn and HttpOn are both false: nothing is left to do")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		fault("CertFile %q and KeyFile %q: either both are needed or none", c.CertFile, c.KeyFile)
	}
	if !slices.Contains([]string{"", "basic", "iam"}, c.MesosAuthentication) {
		fault("MesosAuthentication: %q is neither basic nor iam, nor empty", c.MesosAuthentication)
	}
	check("Domain", CheckDomain(c.Domain))
	check("SOAMname", checkName(c.SOAMname, '_'))
	check("SOARname", checkName(c.SOARname, '_'))
	check("Listener", checkListener(c.Listener))
	check("HTTPListener", checkListener(c.HTTPListener))
	check("IPSources", CheckIPSources(c.IPSources))
	_, err := ParseResolvers(c.Resolvers)
	check("Resolvers", err)
	_, err = ParseZones(c.ZoneResolvers, c.Domain)
	check("ZoneResolvers", err)
	check("Masters", checkMasters(c.Masters))
	check("Zk", checkZK(c.Zk))
	return faults
}
