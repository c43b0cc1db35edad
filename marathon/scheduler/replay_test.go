package scheduler_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/marathon/scheduler"
)

// journal records everything that schedulers are told, one after the other, and what they say to it. A nil one records
// nothing.
type journal struct{ runs []journalRun }

type journalRun struct {
	config    scheduler.Config
	seed, run uint64
	entries   []journalEntry
}

// journalEntry is either something that the scheduler was told, or the answer to a Ready.
type journalEntry struct {
	tell func(*scheduler.Scheduler)
	at   time.Time
	said string
}

func (j *journal) begin(config scheduler.Config, seed, run uint64) {
	if j != nil {
		j.runs = append(j.runs, journalRun{config: config, seed: seed, run: run})
	}
}

func (j *journal) add(e journalEntry) {
	if j != nil && len(j.runs) > 0 {
		last := &j.runs[len(j.runs)-1]
		last.entries = append(last.entries, e)
	}
}

func (j *journal) told(do func(*scheduler.Scheduler)) { j.add(journalEntry{tell: do}) }

func (j *journal) said(at time.Time, decisions []scheduler.Decision) {
	if j != nil {
		j.add(journalEntry{at: at, said: spell(decisions)})
	}
}

// replay tells new schedulers the same, and returns how many decisions were the same. The first that differs is an error.
func (j *journal) replay() (int, error) {
	same := 0
	for n, r := range j.runs {
		s := scheduler.New(r.config, rand.New(rand.NewPCG(r.seed, r.run)))
		for at, e := range r.entries {
			if e.tell != nil {
				e.tell(s)
				continue
			}
			if got := spell(s.Ready(e.at)); got != e.said {
				return same, fmt.Errorf("process %d, entry %d: decisions differ:\n%s", n, at, diff(e.said, got))
			}
			same += strings.Count(e.said, "\n")
		}
	}
	return same, nil
}

// spell writes decisions down, a line each.
func spell(decisions []scheduler.Decision) string {
	var b strings.Builder
	for _, d := range decisions {
		switch d := d.(type) {
		case scheduler.Accept:
			fmt.Fprintf(&b, "accept %s on %s for %v:", d.OfferID, d.AgentID, d.Refuse)
			for _, op := range d.Operations() {
				encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
				fmt.Fprintf(&b, " %s %x %v", op.GetType(), sha256.Sum256(encoded), err)
			}
			b.WriteByte('\n')
		case scheduler.Probe:
			fmt.Fprintf(&b, "probe %s\n", d.Instance.TaskID)
		default:
			encoded, err := json.Marshal(d)
			fmt.Fprintf(&b, "%T %s %v\n", d, encoded, err)
		}
	}
	return b.String()
}

// TestRecordedInputsGiveTheSameDecisions records all that schedulers are told during storms, and tells it others.
func TestRecordedInputsGiveTheSameDecisions(t *testing.T) {
	for seed := range uint64(20) {
		c := newChaos(t, 1000+seed)
		c.journal = new(journal)
		c.start()
		c.storm(60)
		same, err := c.journal.replay()
		if err != nil {
			t.Fatalf("seed %d: %v", 1000+seed, err)
		}
		if same < 100 {
			t.Errorf("seed %d: only %d decisions were made", 1000+seed, same)
		}
	}
}
