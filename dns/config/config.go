// Package config reads the configuration file of Mesos-DNS (its specification, section 8), and is the form in which the
// settings of a DNS server are shown at /v1/config.
//
// Parse takes the bytes of a file. Keys are compared without regard to case; those that are unknown are told and do no
// harm. What is wrong with the file is told all at once, each fault with its key and value. Keys about finding a master
// are checked like the others and mean nothing here, since records come from the mesh: File.Unused lists those given.
//
// The package does no I/O. It also parses what is written in the same way elsewhere, such as lists of resolvers.
package config

import "strings"

// Config is the settings of Mesos-DNS, in the order in which it shows them. Times are in seconds.
type Config struct {
	RefreshSeconds      int
	Port                int
	Timeout             int
	StateTimeoutSeconds int
	ZkDetectionTimeout  int
	HTTPPort            int `json:"HttpPort"`
	TTL                 int

	SRVRecordDefaultWeight                                int
	SOASerial, SOARefresh, SOARetry, SOAExpire, SOAMinttl uint32
	SOAMname, SOARname                                    string

	Masters       []string
	ZoneResolvers map[string][]string
	// Resolvers nil are those of the system.
	Resolvers []string
	IPSources []string
	Zk        string
	Domain    string
	// File is where the settings were read; empty where there is no file.
	File                   string
	Listener, HTTPListener string

	RecurseOn                                    bool
	DNSOn                                        bool `json:"DnsOn"`
	HTTPOn                                       bool `json:"HttpOn"`
	ExternalOn                                   bool
	EnforceRFC952, SetTruncateBit, EnumerationOn bool

	MesosHTTPSOn                  bool
	CACertFile, CertFile, KeyFile string
	MesosCredentials              Credentials
	IAMConfigFile                 string
	MesosAuthentication           string
}

// Credentials are those that Mesos-DNS shows to a master.
type Credentials struct{ Principal, Secret string }

// Default is what holds where a file says nothing. It differs from Mesos-DNS in that answers are kept for 5 seconds and
// not for 60, and that the resolvers are the system's.
func Default() Config {
	return Config{
		RefreshSeconds: 60, Port: 53, Timeout: 5, StateTimeoutSeconds: 300, ZkDetectionTimeout: 30, HTTPPort: 8123, TTL: 5,
		SRVRecordDefaultWeight: 1, SOARefresh: 60, SOARetry: 600, SOAExpire: 86400, SOAMinttl: 5,
		IPSources: []string{"netinfo", "mesos", "host"}, Domain: "mesos", Listener: "0.0.0.0", HTTPListener: "0.0.0.0",
		RecurseOn: true, DNSOn: true, HTTPOn: true, ExternalOn: true, SetTruncateBit: true, EnumerationOn: true,
	}
}

// Redacted is the configuration without what is nobody's business: the secret and the password of ZooKeeper.
func (c Config) Redacted() Config {
	c.MesosCredentials.Secret = ""
	c.Zk = withoutPassword(c.Zk)
	return c
}

// withoutPassword cuts user and password out of an address of ZooKeeper. What stands before the last "@" may be either.
func withoutPassword(zk string) string {
	scheme, rest, ok := strings.Cut(zk, "://")
	if !ok {
		scheme, rest = "", zk
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	if !ok {
		return rest
	}
	return scheme + "://" + rest
}

// settle gives names their usual form; those of the SOA follow the domain where the file has none.
func (f *File) settle() {
	f.Domain = strings.ToLower(strings.TrimSuffix(f.Domain, "."))
	if !f.Given("SOAMname") {
		f.SOAMname = "ns1." + f.Domain
	}
	if !f.Given("SOARname") {
		f.SOARname = "root.ns1." + f.Domain
	}
	f.SOAMname = strings.TrimRight(f.SOAMname, ".") + "."
	f.SOARname = strings.TrimRight(strings.ReplaceAll(f.SOARname, "@", "."), ".") + "."
}
