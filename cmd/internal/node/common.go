package node

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"starling/cmd/internal/flags"
	"starling/gossip"
)

// common is what every role is told.
type common struct {
	ip, advertiseIP     flags.IP
	hostname            string
	hostnameLookup      bool
	workDir             flags.Path
	cluster             string
	logLevel, logFormat string
	insecure            bool
	configDir           string
	stderr              io.Writer
}

func (c *common) register(s *flags.Set, role string) {
	s.Var(&c.ip, "ip", "the IP `address` to listen on and to tell others (listens on all, and tells the first private one of a real interface)")
	s.Var(&c.advertiseIP, "advertise-ip", "the IP `address` to tell others, where it differs from --ip")
	s.StringVar(&c.hostname, "hostname", "", "the `name` to tell others (this machine's; an address of the loopback network is its own)")
	s.BoolVar(&c.hostnameLookup, "hostname-lookup", true, "tell others this machine's name where --hostname names none; --no-hostname-lookup: its address")
	c.workDir = flags.Path(defaultWorkDir(role))
	s.Var(&c.workDir, "work-dir", "the `folder` for all that must survive a restart")
	s.StringVar(&c.cluster, "cluster", "starling", "the cluster's `name`: nodes with different ones never meet")
	s.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	s.StringVar(&c.logFormat, "log-format", "text", "text or json")
	s.BoolVar(&c.insecure, "insecure", false, "listen without encryption where nothing was set up for it; changes nothing yet")
	s.StringVar(&c.configDir, "config-dir", "", "a `folder` with a file for each flag, or several of them: the later ones win")
	s.Alias("log-level", "logging_level")
}

func defaultWorkDir(role string) string {
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/starling", role)
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "starling", role)
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "starling", role)
	}
	return filepath.Join(os.TempDir(), "starling", role)
}

// otherLevels are levels by names that slog has not: those of Mesos and Marathon.
var otherLevels = map[string]slog.Level{
	"warning": slog.LevelWarn, "trace": levelNames["TRACE"], "all": levelNames["TRACE"], "fatal": slog.LevelError + 4, "off": slog.LevelError + 8,
}

// logger makes the process's logger. Mesos' names of levels are understood too.
func (c *common) logger() (*slog.Logger, *levels, error) {
	name := strings.ToLower(c.logLevel)
	level := new(slog.LevelVar)
	if other, ok := otherLevels[name]; ok {
		level.Set(other)
	} else if err := level.UnmarshalText([]byte(name)); err != nil {
		return nil, nil, fmt.Errorf("--log-level: unknown level %q (debug, info, warn, error)", c.logLevel)
	}
	all := newLevels(level)
	switch c.logFormat {
	case "text":
		return slog.New(all.handler(slog.NewTextHandler(c.stderr, nil))), all, nil
	case "json":
		return slog.New(all.handler(slog.NewJSONHandler(c.stderr, nil))), all, nil
	default:
		return nil, nil, fmt.Errorf("--log-format: unknown format %q (text, json)", c.logFormat)
	}
}

// place is where a role lives on the network and on the disk.
type place struct {
	// bind is the address to listen on, empty for all; address is the one to tell others; hostname goes with it.
	bind, address, hostname string
	dir                     string
	// found is set where nobody named the address.
	found bool
}

// resolve decides the place, and makes the folder.
func (c *common) resolve() (place, error) {
	p := place{bind: string(c.ip), address: string(c.advertiseIP), hostname: c.hostname, dir: string(c.workDir)}
	if a, err := netip.ParseAddr(p.address); err == nil && a.IsUnspecified() {
		return place{}, usagef("--advertise-ip: nobody can reach %s; name an address of this machine", a)
	}
	if strings.ContainsFunc(p.hostname, func(c rune) bool { return c <= ' ' || c == 0x7f || strings.ContainsRune(`/\?#@"<>`, c) }) {
		return place{}, usagef("--hostname: %q is not the name of a machine", p.hostname)
	}
	if p.address == "" {
		p.address = p.bind
	}
	if a, err := netip.ParseAddr(p.address); err == nil && a.IsUnspecified() {
		p.address = ""
	}
	if p.address == "" {
		a, ok := gossip.LocalAddr()
		if !ok {
			return place{}, errors.New("no network address found to tell others; set --ip")
		}
		p.address, p.found = a.String(), true
	}
	if p.hostname == "" {
		if a, err := netip.ParseAddr(p.address); err == nil && (a.IsLoopback() || !c.hostnameLookup) {
			// Other processes on this machine may have other addresses of the loopback network; the machine's name is not this one.
			p.hostname = p.address
		} else if p.hostname, err = os.Hostname(); err != nil {
			return place{}, fmt.Errorf("cannot tell this machine's name, set --hostname: %w", err)
		}
	}
	dir, err := filepath.Abs(p.dir)
	if err != nil {
		return place{}, err
	}
	p.dir = dir
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return place{}, fmt.Errorf("cannot make --work-dir: %w", err)
	}
	return p, nil
}

// identity returns the id in a file of the folder, a UUID, and makes one where there is none: what a node is called must
// survive its restart. Agents have agentIdentity.
func identity(dir, file string, fresh func() string) (string, error) {
	path := filepath.Join(dir, file)
	data, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(data))
		if !validUUID(id) {
			return "", fmt.Errorf("%s does not hold this node's id, which is a UUID, but %.80q: restore the file, or remove it: then this node gets a new identity and joins as a new one", path, id)
		}
		return id, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("cannot read this node's id: %w", err)
	}
	id := fresh()
	if err := writeDurably(path, []byte(id+"\n")); err != nil {
		return "", fmt.Errorf("cannot keep this node's id: %w", err)
	}
	return id, nil
}

func validUUID(id string) bool {
	_, err := uuid.Parse(id)
	return err == nil && len(id) == 36 // other lengths are other ways to write one
}

// writeDurably replaces a file so that it is either the old one or the new one, whatever happens.
func writeDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newMasterID() string { return uuid.NewString() }

func newAgentID() string { return uuid.NewString() + "-S0" }

// seconds turns a number of seconds into a duration, within what Mesos takes for a failover timeout.
func seconds(s float64) (time.Duration, error) {
	if !(s >= 0 && s <= math.MaxInt64/float64(time.Second)) {
		return 0, fmt.Errorf("%v seconds is out of range", s)
	}
	return time.Duration(s * float64(time.Second)), nil
}
