package hosts

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// requests are what a master is asked for, whole and in order, before they are spoiled.
var requests = []string{
	"POST /api/v1/scheduler HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" +
		`{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u","name":"n","roles":["a"],"capabilities":[{"type":"MULTI_ROLE"}]}}}`,
	"POST /api/v1/scheduler HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nMesos-Stream-Id: x\r\nContent-Length: %d\r\n\r\n" +
		`{"type":"ACCEPT","framework_id":{"value":"f"},"accept":{"offer_ids":[{"value":"o"}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[]}}]}}`,
	"POST /master/api/v1/scheduler HTTP/1.1\r\nHost: m\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n" +
		"\x10\x01\x1a\x0a\x0a\x08\x0a\x01u\x12\x01n2\x00",
	"POST /api/v1 HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" + `{"type":"GET_STATE"}`,
	"POST /api/v1 HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" + `{"type":"SUBSCRIBE"}`,
	"POST /api/v1 HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" +
		`{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"a","limits":{"cpus":{"value":1}}}]}}`,
	"POST /teardown HTTP/1.1\r\nHost: m\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\nframeworkId=x",
	"POST /node/v1/report HTTP/1.1\r\nHost: m\r\nContent-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n\x08\x01\x12\x01a",
	"GET /state.json?jsonp=f HTTP/1.1\r\nHost: m\r\nAccept-Encoding: gzip\r\nContent-Length: %d\r\n\r\n",
	"GET /tasks?limit=1&offset=2&order=asc HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n",
	"GET /files/read?path=/master/log&offset=0&length=1 HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n",
	"GET /slave(1)/../%%2e%%2e/master/frameworks/ HTTP/1.1\r\nHost: m\r\nContent-Length: %d\r\n\r\n",
	"POST /api/v1 HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nX: %d\r\n\r\n5\r\n{\"typ\r\n0\r\n\r\n",
}

// spoiled is one of them with some of its bytes changed; half of the time only in its body.
func spoiled(rng *rand.Rand) []byte {
	head, body, _ := strings.Cut(requests[rng.IntN(len(requests))], "\r\n\r\n")
	b := []byte(body)
	for range rng.IntN(4) {
		b = spoil(rng, b)
	}
	req := append(fmt.Appendf(nil, head+"\r\n\r\n", len(b)), b...)
	if rng.IntN(2) == 0 {
		for range rng.IntN(6) {
			req = spoil(rng, req)
		}
	}
	return req
}

func spoil(rng *rand.Rand, b []byte) []byte {
	at, to := rng.IntN(len(b)+1), rng.IntN(len(b)+1)
	at, to = min(at, to), max(at, to)
	switch rng.IntN(5) {
	case 0: // leave a part out
		return append(bytes.Clone(b[:at]), b[to:]...)
	case 1: // say a part twice
		return append(bytes.Clone(b[:to]), b[at:]...)
	case 2: // say something much too often
		return append(append(bytes.Clone(b[:at]), bytes.Repeat([]byte("[{\"\x80\x00"), rng.IntN(2000))...), b[at:]...)
	case 3:
		return append(append(bytes.Clone(b[:at]), byte(rng.Uint32())), b[at:]...)
	default:
		b = bytes.Clone(b)
		if at < len(b) {
			b[at] ^= 1 << rng.IntN(8)
		}
		return b
	}
}

// Ten thousand requests that are no good, to a whole cluster in one process: it lives, has not panicked, and holds neither their
// connections nor their memory.
func TestTenThousandSpoiledRequests(t *testing.T) {
	c, p := Dev(t)
	master, err := url.Parse(c.Master)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	flood := func(from, n int) {
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(from+worker)))
				for range n / 8 {
					ask(t, master.Host, spoiled(rng))
				}
			})
		}
		wg.Wait()
	}
	flood(0, 2000) // what it allocates once it has by now
	fds, memory := openFiles(t, p), resident(t, p)
	flood(1000, 8000)
	select {
	case <-p.done:
		t.Fatalf("it has ended: %v", p.cmd.ProcessState)
	default:
	}
	_, metrics, err := Request("GET", c.Master+"/metrics/snapshot", "")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(metrics, `"master/panics":`) && !strings.Contains(metrics, `"master/panics":0.0`) {
		t.Errorf("it has panicked: %s", metrics)
	}
	if out := p.out.String(); strings.Contains(out, "panicked") {
		t.Error("a handler has panicked")
	}
	Eventually(t, 60*time.Second, "their connections are closed", func() error {
		if got := openFiles(t, p); got > fds+20 {
			return fmt.Errorf("%d files are open, there were %d", got, fds)
		}
		return nil
	})
	if got := resident(t, p); got > memory+100<<20 {
		t.Errorf("it holds %d MiB, after 2,000 requests it held %d", got>>20, memory>>20)
	}
	// And it does what it did.
	c.ProbeApp("/probe", 1)
	c.Running("/probe", 1)
}

// ask sends a request and takes what comes of an answer.
func ask(t *testing.T, addr string, request []byte) {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Errorf("cannot connect: %v", err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	// Errors are its right: it may hang up before it has read all.
	_, _ = conn.Write(request)
	_ = conn.(*net.TCPConn).CloseWrite()
	_, _ = io.CopyN(io.Discard, conn, 1<<10)
}

func openFiles(t *testing.T, p *Process) int {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// resident is the memory of a process, in bytes.
func resident(t *testing.T, p *Process) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(data), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
