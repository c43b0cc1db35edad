package gossip

import (
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// logAdapter turns the lines of memberlist and mdns into debug records. Two kinds of lines mean more: suspicion, which
// memberlist tells in no other way, and datagrams of another cluster or key, which an operator has to hear of.
type logAdapter struct {
	log     *slog.Logger
	now     func() time.Time
	suspect func(node string) // must not block
	// streamOnly is told of nodes that answered a probe over a stream but not by datagrams. It must not block.
	streamOnly func(node string)

	mu     sync.Mutex
	warned map[string]time.Time // by address or topic; guarded by mu
}

func (a *logAdapter) logger() *log.Logger { return log.New(a, "", 0) }

const (
	foreignEvery = time.Minute
	maxForeign   = 256
)

// The words of memberlist 0.7; a test notices when they change.
const (
	suspectBegin = "memberlist: Suspect "
	suspectEnd   = " has failed, no acks received"
	blockedBegin = "memberlist: Was able to connect to "
	blockedEnd   = " over TCP but UDP probes failed"
)

var foreignWords = []string{"Decrypt packet failed", "unacceptable label", "no installed keys could decrypt", "Encrypted remote state", "failed to receive: Remote state is encrypted", "encryption is not configured", "remove the stream label"}

// Write takes one line.
func (a *logAdapter) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	a.log.Debug("memberlist", "line", line)
	if _, rest, ok := strings.Cut(line, suspectBegin); ok {
		if name, ok := strings.CutSuffix(rest, suspectEnd); ok {
			a.suspect(name)
		}
	}
	if _, rest, ok := strings.Cut(line, blockedBegin); ok && strings.Contains(rest, blockedEnd) {
		name, _, _ := strings.Cut(rest, blockedEnd)
		a.streamOnly(name)
		if a.due("udp") {
			a.log.Warn("datagrams do not pass, only streams do: is UDP blocked?", "reason", line)
		}
	}
	for _, w := range foreignWords {
		if strings.Contains(strings.ToLower(line), strings.ToLower(w)) {
			a.foreign(line)
			break
		}
	}
	return len(b), nil
}

// foreign warns of a peer with another key or cluster, once a minute for each host.
func (a *logAdapter) foreign(line string) {
	_, addr, _ := strings.Cut(line, "from=")
	addr, _, _ = strings.Cut(addr, " ")
	host := addr
	if i := strings.LastIndexByte(addr, ':'); i > 0 {
		host = addr[:i]
	}
	if a.due(host) {
		a.log.Warn("refused what has another cluster key or name", "addr", addr, "reason", line)
	}
}

// turnedAway warns of a peer that this node cannot join for its key or cluster, like foreign. A peer of another cluster hangs up without a word.
func (a *logAdapter) turnedAway(addr string, err error) {
	reason := err.Error()
	foreign := strings.Contains(reason, "EOF")
	for _, w := range foreignWords {
		foreign = foreign || strings.Contains(strings.ToLower(reason), strings.ToLower(w))
	}
	host := addr
	if i := strings.LastIndexByte(addr, ':'); i > 0 {
		host = addr[:i]
	}
	if foreign && a.due(host) {
		a.log.Warn("turned away by what seems to have another cluster key or name", "addr", addr, "reason", reason)
	}
}

// due tells whether a warning may be given again.
func (a *logAdapter) due(about string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if last, ok := a.warned[about]; ok && now.Sub(last) < foreignEvery {
		return false
	}
	if len(a.warned) >= maxForeign || a.warned == nil {
		a.warned = map[string]time.Time{}
	}
	a.warned[about] = now
	return true
}
