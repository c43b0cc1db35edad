package gossip

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"

	"starling/gossip/memnet"
)

// measured is a transport that remembers the size of the largest datagram.
type measured struct {
	*memnet.Transport
	largest *atomic.Int64
}

func (m measured) WriteTo(b []byte, addr string) (time.Time, error) {
	return m.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (m measured) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	for {
		old := m.largest.Load()
		if int64(len(b)) <= old || m.largest.CompareAndSwap(old, int64(len(b))) {
			return m.Transport.WriteToAddress(b, addr)
		}
	}
}

// What IPv6 promises to carry in one piece is 1,280 bytes. A link that carries no more loses larger datagrams without a word where routers may not
// send ICMP, or fragments are dropped.
func TestNoDatagramIsTooLargeForAnyLink(t *testing.T) {
	const most = 1280 - 40 - 8 // less the headers of IPv6 and UDP
	for profile, keys := range map[string][]string{ProfileLAN: {"", strings.Repeat("k", 32)}, ProfileWAN: {strings.Repeat("k", 32)}} {
		for _, key := range keys {
			t.Run(fmt.Sprintf("%s, key of %d bytes", profile, len(key)), func(t *testing.T) {
				bubble(t, func(t *testing.T, f *flock) {
					var largest atomic.Int64
					for i := range 6 {
						f.start(i, func(c *Config) {
							c.Profile, c.Key, c.Cluster = profile, Secret(key), "a-cluster-of-a-longer-name"
							c.Transport = measured{f.net.Host(memnet.Addr(i)), &largest}
							c.GossipRate = 1 << 20
						}).Set(assign("node", "here"))
					}
					f.within(time.Minute, "all know all", func() bool { return whole(f.nodes) })
					f.nodes[3].kill() // there is more to say then, about nodes too
					for round := range 8 {
						for i, n := range f.nodes {
							for size := 10; size < 1300; size += 61 {
								n.Set(assign(fmt.Sprint("task/f/", i, size), strings.Repeat(string(rune('a'+round%26)), size+round)))
							}
						}
						time.Sleep(300 * time.Millisecond)
					}
					t.Logf("largest datagram: %d bytes", largest.Load())
					if n := largest.Load(); n > most || n < most*9/10 {
						t.Errorf("the largest datagram has %d bytes, want at most %d, and not much less", n, most)
					}
				})
			})
		}
	}
}

// TestProfiles holds every number of every profile, those that memberlist chooses too. When a release of memberlist changes one, or brings a new
// setting, this says so; whether the profile follows is decided then, and -update notes it.
func TestProfiles(t *testing.T) {
	var b strings.Builder
	for _, name := range []string{ProfileLAN, ProfileWAN, ProfileLocal} {
		p := newProfile(name)
		fmt.Fprintf(&b, "%s\n", name)
		fmt.Fprintf(&b, "  retransmit %d, fanout %d, coalesce %v, sync %v\n", p.retransmit, p.fanout, p.coalesce, p.sync)
		v := reflect.ValueOf(*p.memberlist)
		for i := range v.NumField() {
			switch f := v.Type().Field(i); {
			case f.Name == "Name": // of this machine
			case v.Field(i).CanInterface():
				fmt.Fprintf(&b, "  %s %v\n", f.Name, v.Field(i).Interface())
			}
		}
	}
	file := filepath.Join("testdata", "profiles.txt")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("the numbers of the profiles have changed (-want +got):\n%s", diff)
	}
}
