package gossip

import (
	"bytes"
	"compress/lzw"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"starling/gossip/memnet"
	"starling/gossip/record"
)

// attacker is a host that is no node, but may have the key.
type attacker struct {
	t       *testing.T
	net     *memnet.Transport
	label   string
	key     []byte // nil: the mesh is not encrypted
	address string // of the victim
	victim  *Mesh
	settle  func() // lets the victim deal with what was sent
}

const attackerAddr = "10.66.66.66"

func newAttacker(t *testing.T, f *flock, secret Secret) *attacker {
	t.Helper()
	a := &attacker{t: t, net: f.net.Host(attackerAddr), label: DefaultConfig().Cluster, address: net.JoinHostPort(memnet.Addr(0), fmt.Sprint(memnet.Port))}
	if secret != nil {
		a.key = secret.MeshKey(a.label)
	}
	return a
}

// seal encrypts as memberlist does.
func (a *attacker) seal(version byte, plain, data []byte) []byte {
	if a.key == nil {
		return plain
	}
	block, err := aes.NewCipher(a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		a.t.Fatal(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	return gcm.Seal(append([]byte{version}, nonce...), nonce, plain, data)
}

func (a *attacker) labelled(b []byte) []byte {
	return append(append([]byte{wireLabel, byte(len(a.label))}, a.label...), b...)
}

func (a *attacker) raw(b []byte) {
	if _, err := a.net.WriteTo(b, a.address); err != nil {
		a.t.Fatal(err)
	}
}

// packet sends a message as a member would.
func (a *attacker) packet(plain []byte) { a.raw(a.labelled(a.seal(1, plain, []byte(a.label)))) }

// user sends a message of ours.
func (a *attacker) user(msg []byte) { a.packet(append([]byte{wireUser}, msg...)) }

// streamed is the message as it is sent over a stream.
func (a *attacker) streamed(plain []byte) []byte {
	if a.key == nil {
		return a.labelled(plain)
	}
	head := binary.BigEndian.AppendUint32([]byte{wireEncrypted}, uint32(len(plain)+encryptionOverhead))
	return a.labelled(append(head, a.seal(1, plain, append(bytes.Clone(head), a.label...))...))
}

// dial opens a stream and writes to it until the other side has enough.
func (a *attacker) dial(b []byte) net.Conn {
	c, err := a.net.DialTimeout(a.address, time.Second)
	if err != nil {
		a.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = c.Write(b)
	return c
}

// stream sends a message over a stream and waits for its end.
func (a *attacker) stream(plain []byte) {
	c := a.dial(a.streamed(plain))
	_, _ = io.Copy(io.Discard, c)
	closeQuietly(c)
}

// pack encodes a map of msgpack: names and values in turn.
func pack(pairs ...any) []byte {
	b := []byte{0x80 | byte(len(pairs)/2)}
	for _, p := range pairs {
		switch v := p.(type) {
		case string:
			if len(v) < 32 {
				b = append(b, 0xa0|byte(len(v)))
			} else {
				b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(len(v)))
			}
			b = append(b, v...)
		case []byte:
			b = append(append(b, 0xc4, byte(len(v))), v...)
		case int:
			b = binary.BigEndian.AppendUint64(append(b, 0xd3), uint64(v))
		case bool:
			b = append(b, 0xc2)
			if v {
				b[len(b)-1]++
			}
		}
	}
	return b
}

func message1(kind byte, pairs ...any) []byte { return append([]byte{kind}, pack(pairs...)...) }

// alive is memberlist's word that a node is there.
func alive(name string, addr []byte, versions ...byte) []byte {
	return message1(wireAlive, "Incarnation", 1, "Node", name, "Addr", addr, "Port", 7946, "Meta", []byte{}, "Vsn", versions)
}

// bomb is a compressed message of so many bytes, compressed again so many times.
func bomb(size, times int) []byte {
	plain := append([]byte{wireUser}, make([]byte, size)...)
	for range times {
		var b bytes.Buffer
		w := lzw.NewWriter(&b, lzw.LSB, 8)
		_, _ = w.Write(plain)
		_ = w.Close()
		plain = []byte{9, 0x82, 0xa4}
		plain = append(append(plain, "Algo"...), 0, 0xa3)
		plain = binary.BigEndian.AppendUint32(append(append(plain, "Buf"...), 0xc6), uint32(b.Len()))
		plain = append(plain, b.Bytes()...)
	}
	return plain
}

func compoundOf(parts ...[]byte) []byte {
	b := []byte{wireCompound, byte(len(parts))}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	}
	return append(b, bytes.Join(parts, nil)...)
}

func countOf(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return m.GetCounter().GetValue()
}

// refusals is all that a node has refused.
func refusals(m *Mesh) float64 {
	x := m.metrics
	return countOf(x.refused) + countOf(x.refusedDatagrams) + countOf(x.refusedStreams) + countOf(x.refusedMembers) + countOf(x.refusedForeign)
}

// wantServing checks that the first node goes on hearing the others, and telling them.
func (f *flock) wantServing(after string) {
	f.t.Helper()
	want := "after " + after
	large := strings.Repeat("x", 5000) + want
	f.nodes[0].Set(assign("abuse", want))
	f.nodes[1].Set(assign("abuse", want), assign("large", large))
	f.within(20*time.Second, "served "+want, func() bool {
		return everywhere(f.nodes, "node-000", "abuse", want)() && everywhere(f.nodes, "node-001", "abuse", want)() &&
			value(f.nodes[0], "node-001", "large") == large && whole(f.nodes)
	})
}

func (f *flock) settle() {
	synctest.Wait()
	time.Sleep(time.Millisecond)
	synctest.Wait()
}

// Everything that nobody of the mesh would send is refused and counted, costs little, and leaves nothing behind.
func TestAbuseIsRefused(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	small, twice := bomb(1<<20, 1), bomb(30<<20, 2)
	large := bomb(38<<20, 1)
	for len(large) < 198<<10 { // as large as a bomb may be that bursts into what memberlist allows
		large = append(large, 0)
	}
	v6, v4 := make([]byte, 16), []byte{10, 1, 2, 3}
	digests := (&message{kind: kindDigests, node: "node-001", flags: wantReply, mask: ^uint64(0)}).append(nil)
	attacks := []struct {
		name string
		do   func(a *attacker)
	}{
		{"random datagrams", func(a *attacker) {
			for i := range 300 {
				a.raw(random(1 + i*7))
			}
		}},
		{"random datagrams with the label", func(a *attacker) {
			for i := range 300 {
				a.raw(a.labelled(random(i * 5)))
			}
		}},
		{"random messages of every type", func(a *attacker) {
			for i := range 500 {
				a.packet(append([]byte{byte(i % 20)}, random(i)...))
			}
		}},
		{"a datagram that is too large", func(a *attacker) { a.packet(append([]byte{wireUser}, random(60_000)...)) }},
		{"truncated messages", func(a *attacker) {
			for _, msg := range [][]byte{
				alive("made-up", v4, 1, 5, 2, 1, 1, 1), message1(wirePing, "SeqNo", 1, "Node", "node-000"), append([]byte{wireUser}, digests...),
				compoundOf([]byte{wireUser, 1}, []byte{wireUser, 2}),
			} {
				for i := range msg {
					a.packet(msg[:i])
				}
			}
		}},
		{"lengths beyond the end", func(a *attacker) {
			for kind := byte(0); kind < 14; kind++ {
				a.packet([]byte{kind, 0xdf, 0xff, 0xff, 0xff, 0xff})                         // a map of 2^32
				a.packet([]byte{kind, 0x81, 0xdb, 0xff, 0xff, 0xff, 0xff, 'x'})              // a name of 2^32
				a.packet([]byte{kind, 0xdd, 0xff, 0xff, 0xff, 0xff, 1})                      // a list of 2^32
				a.packet([]byte{kind, 0x81, 0xa3, 'M', 'e', 'x', 0xc6, 255, 255, 255, 0, 1}) // bytes of 2^32
			}
		}},
		{"a list in a list and so on", func(a *attacker) { a.packet(append([]byte{wirePing}, bytes.Repeat([]byte{0x91}, 3000)...)) }},
		{"nested datagrams", func(a *attacker) {
			msg := []byte{wireUser, 1}
			for range 500 {
				msg = compoundOf(msg)
			}
			a.packet(msg)
			a.packet(compoundOf(nil, nil, nil))
			a.packet([]byte{wireCompound, 255, 0})
		}},
		{"compressed datagrams", func(a *attacker) {
			a.packet(small)
			a.packet(compoundOf(small))
			a.packet(twice)
		}},
		{"an encrypted message of nothing", func(a *attacker) {
			a.raw(a.labelled(a.seal(1, nil, []byte(a.label))))
			a.raw(a.labelled(a.seal(0, nil, []byte(a.label))))
			a.raw(a.labelled(a.seal(0, []byte{255, 255, 255}, []byte(a.label))))
			a.stream(nil)
		}},
		{"members that are none", func(a *attacker) {
			for i, msg := range [][]byte{
				alive("", v4, 1, 5, 2, 1, 1, 1), alive("a/b", v4, 1, 5, 2, 1, 1, 1), alive(strings.Repeat("n", 300), v4, 1, 5, 2, 1, 1, 1),
				alive("x", nil, 1, 5, 2, 1, 1, 1), alive("x", []byte{1, 2, 3}, 1, 5, 2, 1, 1, 1), alive("x", append(v6, 1), 1, 5, 2, 1, 1, 1),
				alive("x", v4, 5, 5, 5, 1, 1, 1), alive("x", v4, 1, 1, 1, 1, 1, 1), alive("x", v4, 1, 5, 9, 1, 1, 1), alive("x", v4, 1, 5, 2, 2, 3, 2), alive("x", v4, 1, 5, 2, 0, 0, 0),
			} {
				before := countOf(a.victim.metrics.refusedMembers)
				a.packet(msg)
				a.settle()
				if countOf(a.victim.metrics.refusedMembers) == before {
					a.t.Errorf("member %d was not refused", i)
				}
			}
		}},
		{"messages of unknown kinds and versions", func(a *attacker) {
			for i := range 256 {
				a.user([]byte{messageVersion, byte(max(i, 99)), 1, 2, 3})
				a.user([]byte{byte(max(i, 2)), byte(kindHot), 1, 2, 3})
			}
		}},
		{"records of unknown versions", func(a *attacker) {
			for i := range 200 {
				d := record.NewMap("later", 1)
				d.Set(epoch, assign("k", "v"))
				wire := d.Delta("later", 0)
				wire[i%2] = byte(2 + 8*(i%2) + 16*(i/2%8))
				a.user((&message{kind: kindHot, deltas: [][]byte{wire}}).append(nil))
			}
		}},
		{"a bomb of 200 kB in a stream", func(a *attacker) {
			for range 20 {
				a.stream(large)
			}
		}},
		{"exchanges of absurdly many nodes", func(a *attacker) {
			for _, n := range []int{-1, 1 << 40, 1 << 20, maxMembers + 1, 1 << 62} {
				a.stream(message1(wirePushPull, "Nodes", n, "UserStateLen", 0, "Join", false))
				a.stream(message1(wirePushPull, "Nodes", 0, "UserStateLen", n, "Join", true))
				a.stream(message1(wirePushPull, "Nodes", 1, "Nodes", n, "UserStateLen", 0, "Join", true))
			}
			a.stream([]byte{wirePushPull, 0xdf, 0xff, 0xff, 0xff, 0xff})
			a.stream([]byte{wirePushPull, 0x93, 1, 2, 3})
		}},
		{"huge messages announced by many streams", func(a *attacker) {
			var conns []net.Conn
			for range 100 {
				// Nothing follows. Under encryption the outer length is what is believed first.
				b := a.labelled(message1(wireUser, "UserMsgLen", 20<<20-1))
				if a.key != nil {
					b = a.labelled([]byte{wireEncrypted, 1, 0x3f, 0xff, 0xff})
				}
				conns = append(conns, a.dial(b))
				b = a.labelled(message1(wireUser, "UserMsgLen", 9<<20))
				if a.key != nil {
					b = a.labelled([]byte{wireEncrypted, 0, 0x90, 0, 0})
				}
				conns = append(conns, a.dial(b))
				a.settle()
			}
			for _, c := range conns {
				closeQuietly(c)
			}
		}},
		{"streams of every type, random and cut off", func(a *attacker) {
			for i := range 100 {
				a.stream(append([]byte{byte(i)}, random(i*3)...))
				c := a.dial(random(1 + i))
				closeQuietly(c)
				c = a.dial(a.labelled(random(i)))
				closeQuietly(c)
				c = a.dial([]byte{wireLabel, 255, byte(i)})
				closeQuietly(c)
			}
		}},
		{"a name of a node without end", func(a *attacker) {
			b := append(message1(wirePushPull, "Nodes", 1, "UserStateLen", 0, "Join", false), 0x81, 0xa4, 'N', 'a', 'm', 'e', 0xdb, 0xff, 0xff, 0xff, 0xff)
			a.stream(append(b, make([]byte, 4<<20)...))
		}},
		{"everything asked for again and again", func(a *attacker) {
			for range 1500 {
				a.user(digests)
				a.settle()
			}
			if countOf(a.victim.metrics.dropped.WithLabelValues(dropAnswer)) == 0 {
				a.t.Error("1,500 requests for everything were answered")
			}
			a.packet(nil)
		}},
	}
	for _, secret := range []Secret{nil, Secret(strings.Repeat("k", 32))} {
		t.Run(fmt.Sprintf("key=%v", secret != nil), func(t *testing.T) {
			bubble(t, func(t *testing.T, f *flock) {
				f.form(3, func(c *Config) { c.Key = secret })
				a := newAttacker(t, f, secret)
				a.victim, a.settle = f.nodes[0].Mesh, f.settle
				time.Sleep(20 * time.Second)
				goroutines := runtime.NumGoroutine()
				for _, attack := range attacks {
					if secret == nil && strings.HasPrefix(attack.name, "an encrypted") {
						continue
					}
					// All that is allocated is counted, by the other nodes too, and some attacks take minutes.
					limit := uint64(192)
					if strings.Contains(attack.name, "bomb") {
						limit = 64
					}
					before := refusals(a.victim)
					var start, end runtime.MemStats
					runtime.ReadMemStats(&start)
					attack.do(a)
					f.settle()
					runtime.ReadMemStats(&end)
					if n := refusals(a.victim) - before; n == 0 {
						t.Errorf("%s: nothing was counted", attack.name)
					} else if grown := (end.TotalAlloc - start.TotalAlloc) >> 20; grown > limit {
						t.Errorf("%s: %d MiB were allocated, want less than %d", attack.name, grown, limit)
					} else {
						t.Logf("%s: %.0f refused, %d MiB allocated in all", attack.name, n, grown)
					}
					f.wantServing(attack.name)
				}
				time.Sleep(time.Minute)
				if n := runtime.NumGoroutine(); n > goroutines+10 {
					t.Errorf("%d goroutines, %d before", n, goroutines)
				}
				f.settle()
				g := a.victim.transport.gate
				g.mu.Lock()
				defer g.mu.Unlock()
				if g.streams != 0 || g.bytes != 0 || len(g.hosts) != 0 {
					t.Errorf("the gate still counts %d streams of %d hosts, %d bytes", g.streams, len(g.hosts), g.bytes)
				}
				for _, m := range a.victim.Members() {
					if !strings.HasPrefix(m.Name, "node-") {
						t.Errorf("%q became a member", m.Name)
					}
				}
			})
		})
	}
}

// Streams that say nothing, or next to nothing, are bounded in number and time, and keep nobody else out.
func TestSlowStreamsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3)
		a := newAttacker(t, f, nil)
		a.victim, a.settle = f.nodes[0].Mesh, f.settle
		ended := make(chan time.Duration, 300)
		start := time.Now()
		for i := range 300 {
			c, err := a.net.DialTimeout(a.address, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			f.settle()
			go func() {
				defer closeQuietly(c)
				b := a.labelled(message1(wireUser, "UserMsgLen", 1000))
				for k := 0; i%2 == 0 && k < len(b); k++ { // the others say nothing at all
					if _, err := c.Write(b[k : k+1]); err != nil {
						break
					}
					time.Sleep(time.Second)
				}
				_, _ = io.Copy(io.Discard, c)
				ended <- time.Since(start)
			}()
		}
		f.settle()
		g := a.victim.transport.gate
		g.mu.Lock()
		open := g.streams
		g.mu.Unlock()
		if open > maxHostStreams {
			t.Errorf("%d streams of one host are open, want at most %d", open, maxHostStreams)
		}
		large := strings.Repeat("x", 20_000)
		f.nodes[1].Set(assign("large", large)) // it takes a stream
		f.within(3*time.Second, "a large value beside slow streams", func() bool { return value(f.nodes[0], "node-001", "large") == large })
		for range 300 {
			select {
			case took := <-ended:
				if took > 15*time.Second {
					t.Errorf("a stream that said nothing was open for %v", took)
				}
			case <-time.After(time.Minute):
				t.Fatal("a stream that says nothing stays open")
			}
		}
		f.wantServing("slow streams")
	})
}

// Names that somebody makes up are no members, and keep nobody from being served.
func TestMadeUpNodesAreNoMembers(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(3)
		a := newAttacker(t, f, nil)
		for i := 0; i < 2000; i += 40 {
			msg := &message{kind: kindHot}
			for k := range 40 {
				m := record.NewMap(fmt.Sprint("made-up-", i+k), 1)
				m.Set(epoch, assign("k", "v"))
				msg.deltas = append(msg.deltas, m.Delta(m.Self(), 0))
			}
			a.user(msg.append(nil))
			f.settle()
		}
		f.start(3).Set(assign("node", "late, but honest"))
		f.within(time.Minute, "a node that joins", everywhere(f.nodes[:1], "node-003", "node", "late, but honest"))
		f.wantServing("2,000 made-up nodes")
		if n := f.nodes[0].liveness("made-up-7"); n != record.Unknown {
			t.Errorf("a node that somebody made up is %v", n)
		}
	})
}

// Memberlist is let know so many nodes and no more; those that it knows are not refused.
func TestMembersAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(2)
		d := &delegate{f.nodes[0].Mesh}
		node := func(name string) *memberlist.Node {
			return &memberlist.Node{Name: name, Addr: []byte{10, 0, 0, 1}, Port: 1, PMin: 1, PMax: 5, PCur: 2, DMin: 1, DMax: 1, DCur: 1}
		}
		admitted := 0
		for i := range maxMembers + 100 {
			if d.NotifyAlive(node(fmt.Sprint("made-up-", i))) == nil {
				admitted++
			}
		}
		if admitted >= maxMembers {
			t.Errorf("%d new nodes were admitted at once", admitted)
		}
		if err := d.NotifyAlive(node("node-001")); err != nil {
			t.Errorf("a node that is known: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if err := d.NotifyAlive(node("later")); err != nil {
			t.Errorf("when they turned out not to exist: %v", err)
		}
	})
}

// What others have printed in the log is not taken for memberlist's own words.
func TestLogLinesOfOthersAreNotBelieved(t *testing.T) {
	suspected, refused := 0, 0
	a := &logAdapter{log: logTo(t.Output(), "n"), now: time.Now, suspect: func(string) { suspected++ }, streamOnly: func(string) {}, refused: func(bool) { refused++ }}
	for i, line := range []string{
		"[ERR] memberlist: Push/Pull with x failed: remote error: [INFO] memberlist: Suspect node-001 has failed, no acks received",
		"[WARN] memberlist: Got ping for unexpected node memberlist: Suspect node-001 has failed, no acks received",
		"[INFO] memberlist: Suspect node-001 has failed, no acks received",
	} {
		_, _ = a.Write([]byte(line + "\n"))
		if want := i / 2; suspected != want {
			t.Errorf("%q: suspected %d times, want %d", line, suspected, want)
		}
	}
	for i := range 1000 {
		_, _ = a.Write(fmt.Appendf(nil, "[ERR] memberlist: Decrypt packet failed: x from=10.0.%d.%d:1", i/250, i%250))
	}
	if len(a.warned) > maxForeign || refused != 1000 {
		t.Errorf("%d addresses are remembered, %d lines counted, want at most %d, and 1000", len(a.warned), refused, maxForeign)
	}
}

// An address out of a message is not looked up as a name.
func TestNamesAreNotLookedUpForMemberlist(t *testing.T) {
	bubble(t, func(t *testing.T, f *flock) {
		f.form(2)
		for _, addr := range []string{"example.invalid:80", "?0102:80", ":80", "10.0.0.1", "10.0.0.1:99999"} {
			if _, err := f.nodes[0].transport.WriteTo(nil, addr); err == nil {
				t.Errorf("a datagram was sent to %q", addr)
			}
			if c, err := f.nodes[0].transport.DialTimeout(addr, time.Second); err == nil {
				closeQuietly(c)
				t.Errorf("%q was dialled", addr)
			}
		}
	})
}

// TestAbuseOfRealSockets sends garbage to a node on loopback, with datagrams and streams of the system.
func TestAbuseOfRealSockets(t *testing.T) {
	for _, secret := range []Secret{nil, Secret(strings.Repeat("k", 32))} {
		a := real(t, "a", "127.0.0.1", func(c *Config) { c.Key = secret })
		host, port := a.Address()
		addr := net.JoinHostPort(host, fmt.Sprint(port))
		udp, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(3, 4))
		label := append([]byte{wireLabel, byte(len(a.cfg.Cluster))}, a.cfg.Cluster...)
		for i := range 500 {
			b := make([]byte, 1+rng.IntN(2000))
			for k := range b {
				b[k] = byte(rng.Uint32())
			}
			if i%2 == 0 {
				b = append(bytes.Clone(label), b...)
			}
			_, _ = udp.Write(b)
			if i%5 == 0 {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = c.Write(b)
				closeQuietly(c)
			}
		}
		closeQuietly(udp)
		b := real(t, "b", "127.0.0.2", func(c *Config) { c.Key, c.Join = secret, []string{addr} })
		b.Set(assign("node", "b"))
		eventually(t, a, "b's record", func() bool { return value(&node{Mesh: a}, "b", "node") == "b" })
		if refusals(a) == 0 {
			t.Error("nothing was refused")
		}
	}
}
