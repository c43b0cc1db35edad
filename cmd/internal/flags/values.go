package flags

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Duration is a flag that takes "2s" as Go writes it, "15secs", "10mins" as Mesos does.
type Duration time.Duration

// Std returns it as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes the duration as Go does.
func (d *Duration) String() string { return time.Duration(*d).String() }

// Set parses either form.
func (d *Duration) Set(s string) error {
	v, err := ParseDuration(s)
	if err == nil {
		*d = Duration(v)
	}
	return err
}

// ParseDuration takes "2s" as Go writes it, and Mesos' "15secs", "1.5hrs", "2weeks".
func ParseDuration(s string) (time.Duration, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return d, nil
	}
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz")
	units := map[string]time.Duration{
		"ns": time.Nanosecond, "us": time.Microsecond, "ms": time.Millisecond, "secs": time.Second, "mins": time.Minute,
		"hrs": time.Hour, "days": 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
	}
	unit, ok := units[s[len(number):]]
	v, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || math.IsNaN(v) || math.Abs(v*float64(unit)) > math.MaxInt64 {
		return 0, fmt.Errorf("not a duration: %q (write 15secs, 10mins or 2s)", s)
	}
	return time.Duration(v * float64(unit)), nil
}

// Millis is a duration given as a bare number of milliseconds, as Marathon does; it takes the other forms too.
type Millis time.Duration

// Std returns it as the standard library's type.
func (m Millis) Std() time.Duration { return time.Duration(m) }

// String writes the number of milliseconds.
func (m *Millis) String() string { return strconv.FormatInt(time.Duration(*m).Milliseconds(), 10) }

// Set parses a number of milliseconds or a duration.
func (m *Millis) Set(s string) error {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n > math.MaxInt64/int64(time.Millisecond) || n < 0 {
			return fmt.Errorf("out of range: %s ms", s)
		}
		*m = Millis(time.Duration(n) * time.Millisecond)
		return nil
	}
	d, err := ParseDuration(s)
	if err == nil {
		*m = Millis(d)
	}
	return err
}

// Bytes is a size given as Mesos writes it, "2GB", "512MB", "1024KB" or "10B"; a bare number is of bytes.
type Bytes int64

// String writes the size in the largest unit in which it is whole.
func (b *Bytes) String() string {
	for _, u := range byteUnits {
		if n := int64(*b); n != 0 && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return "0B"
}

var byteUnits = []struct {
	name string
	size int64
}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"KB", 1 << 10}, {"B", 1}}

// Set parses a size.
func (b *Bytes) Set(s string) error {
	number, size := strings.TrimSpace(s), int64(1)
	for _, u := range byteUnits {
		if cut, ok := strings.CutSuffix(strings.ToUpper(number), u.name); ok {
			number, size = strings.TrimSpace(cut), u.size
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/size {
		return fmt.Errorf("not a size: %q (write 512MB or 2GB)", s)
	}
	*b = Bytes(n * size)
	return nil
}

// List is a comma-separated list; empty items are dropped.
type List []string

// String joins the items.
func (l *List) String() string { return strings.Join(*l, ",") }

// Set replaces the list.
func (l *List) Set(s string) error {
	*l = nil
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			*l = append(*l, item)
		}
	}
	return nil
}

// IP is an address; empty by default.
type IP string

// String returns the address.
func (ip *IP) String() string { return string(*ip) }

// Set refuses what is not an IP address.
func (ip *IP) Set(s string) error {
	if _, err := netip.ParseAddr(s); err != nil && s != "" {
		return fmt.Errorf("not an IP address: %q", s)
	}
	*ip = IP(s)
	return nil
}

// Networks is a comma-separated list of networks, as 10.0.0.0/8; a bare address is a network of one.
type Networks []netip.Prefix

// String joins the networks.
func (n *Networks) String() string {
	var all []string
	for _, p := range *n {
		all = append(all, p.String())
	}
	return strings.Join(all, ",")
}

// Set replaces the networks, and refuses what is none.
func (n *Networks) Set(s string) error {
	var items List
	_ = items.Set(s) // never fails
	var all Networks
	for _, item := range items {
		p, err := netip.ParsePrefix(item)
		if ip, e := netip.ParseAddr(item); e == nil && ip.Zone() == "" {
			p, err = netip.PrefixFrom(ip, ip.BitLen()), nil
		}
		if err != nil {
			return fmt.Errorf("not a network: %q (write 10.0.0.0/8 or 10.1.2.3)", item)
		}
		all = append(all, p.Masked())
	}
	*n = all
	return nil
}

// Port is a TCP or UDP port; 0 lets the system choose, or switches a listener off where the flag says so.
type Port int

// String writes the number.
func (p *Port) String() string { return strconv.Itoa(int(*p)) }

// Set refuses what is not a port.
func (p *Port) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("not a port: %q", s)
	}
	*p = Port(n)
	return nil
}

// Path is the name of a file or a folder. "file:///path" is the path itself.
type Path string

// String returns the path.
func (p *Path) String() string { return string(*p) }

// Set strips the scheme and resolves a leading "~/".
func (p *Path) Set(s string) error {
	s = strings.TrimPrefix(s, "file://")
	if rest, ok := strings.CutPrefix(s, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return err
		}
		s = home + "/" + rest
	}
	*p = Path(s)
	return nil
}

func isPath(f *flag.Flag) bool {
	_, ok := f.Value.(*Path)
	return ok
}

// HostPort checks what people write as an address: host, host:port, or either with "http://" before it. It returns host:port.
func HostPort(s, defaultPort string) (string, error) {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "http://"), "/")
	if strings.Contains(s, "://") {
		return "", fmt.Errorf("%q: only http is spoken", s)
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		s = net.JoinHostPort(strings.Trim(s, "[]"), defaultPort)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return "", errors.New("not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("not a port: %q", port)
	}
	return s, nil
}
