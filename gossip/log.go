package gossip

import (
	"log"
	"log/slog"
	"maps"
	"os"
	"slices"
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
	// refused is told of what memberlist could not make sense of, or held for another cluster's. It must not block.
	refused func(foreign bool)

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
	suspectBegin = "[INFO] memberlist: Suspect "
	suspectEnd   = " has failed, no acks received"
	blockedBegin = "[WARN] memberlist: Was able to connect to "
	blockedEnd   = " over TCP but UDP probes failed"
	joinBegin    = "[DEBUG] memberlist: failed to join "
)

// hungUp are the ends of lines about a stream that the peer closed without a word, which is what one of another cluster does.
var hungUp = []string{": EOF", "connection reset by peer", "broken pipe", "closed pipe"}

var foreignWords = []string{"Decrypt packet failed", "unacceptable label", "no installed keys could decrypt", "Encrypted remote state", "failed to receive: Remote state is encrypted", "encryption is not configured", "remote state is not encrypted", "remove the stream label"}

// malformedWords begin the lines about what did not decode.
var malformedWords = []string{"[ERR] memberlist: Failed to decode ", "[ERR] memberlist: Failed to receive ", "[ERR] memberlist: Failed to read "}

// Write takes one line. Parts of it may come from anybody, as names and errors of others are printed as they are.
func (a *logAdapter) Write(b []byte) (int, error) {
	line := strings.TrimSpace(string(b))
	a.log.Debug("memberlist", "line", line)
	if rest, ok := strings.CutPrefix(line, suspectBegin); ok {
		if name, ok := strings.CutSuffix(rest, suspectEnd); ok {
			a.suspect(name)
		}
	}
	if rest, ok := strings.CutPrefix(line, blockedBegin); ok && strings.Contains(rest, blockedEnd) {
		name, _, _ := strings.Cut(rest, blockedEnd)
		a.streamOnly(name)
		if a.due("udp") {
			a.log.Warn("datagrams do not pass, only streams do: is UDP blocked?", "reason", line)
		}
	}
	if strings.HasPrefix(line, joinBegin) && slices.ContainsFunc(hungUp, func(end string) bool { return strings.HasSuffix(line, end) }) {
		a.foreign(line, "not joined, it hung up: has it another cluster key or name?")
	}
	for _, w := range foreignWords {
		if strings.Contains(line, errRefused.Error()) || strings.Contains(line, errBroken.Error()) || strings.Contains(line, os.ErrDeadlineExceeded.Error()) {
			break // counted already, or a bad link, and of no other cluster
		}
		if strings.Contains(strings.ToLower(line), strings.ToLower(w)) {
			a.refused(true)
			a.foreign(line, "not joined, it has another cluster key or name")
			break
		}
	}
	for _, w := range malformedWords {
		if strings.HasPrefix(line, w) {
			a.refused(false)
			break
		}
	}
	return len(b), nil
}

// foreign warns of a peer with another key or cluster, once a minute for each host: one that came here, or in the words given one that this
// node went to.
func (a *logAdapter) foreign(line, joining string) {
	what := "refused what has another cluster key or name"
	_, addr, _ := strings.Cut(line, "from=")
	addr, _, _ = strings.Cut(addr, " ")
	if rest, ok := strings.CutPrefix(line, joinBegin); ok {
		what = joining
		addr, _, _ = strings.Cut(rest, ": ")
	}
	host := addr
	if i := strings.LastIndexByte(addr, ':'); i > 0 {
		host = addr[:i]
	}
	if a.due(host) {
		a.log.Warn(what, "addr", addr, "reason", line)
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
	if a.warned == nil {
		a.warned = map[string]time.Time{}
	}
	if len(a.warned) >= maxForeign {
		maps.DeleteFunc(a.warned, func(_ string, last time.Time) bool { return now.Sub(last) >= foreignEvery })
	}
	if len(a.warned) >= maxForeign {
		return false // addresses of datagrams can be made up: others have been warned of, that has to do
	}
	a.warned[about] = now
	return true
}
