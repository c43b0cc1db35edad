//go:build linux

package dns_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// question is a query, and what a right answer to it looks like.
type question struct {
	name    string
	qtype   uint16
	packet  []byte // its first two bytes, the id, are overwritten
	rcode   byte
	answers uint16 // at least so many records in the answer section
}

func newQuestion(name string, qtype uint16, edns bool, rcode byte, answers uint16) question {
	q := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range bytes.SplitSeq([]byte(name), []byte(".")) {
		q = append(append(q, byte(len(label))), label...)
	}
	q = binary.BigEndian.AppendUint16(append(q, 0), qtype)
	q = append(q, 0, 1)
	if edns {
		q[11] = 1
		q = append(q, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0)
	}
	return question{name, qtype, q, rcode, answers}
}

// load says how to ask. It asks the questions in turn, from sockets with a port each.
type load struct {
	server    netip.AddrPort
	questions []question
	sockets   int
	// Either window questions are under way at each socket at any time, or rate questions are asked in each second, at
	// random moments and whatever becomes of them.
	window int
	rate   float64
	lasts  time.Duration
	// cpu is the processor to run on; -1: any.
	cpu int
}

// outcome is what became of it.
type outcome struct {
	sent, answered, lost, wrong, bytes uint64
	// stray are answers to what was not asked, was answered, or was given up.
	stray uint64
	took  time.Duration
	// latency, from the call that sent to the moment at which the system received the answer.
	latency histogram
	// complaint is about the first wrong answer.
	complaint string
}

const (
	ids = 1 << 16
	// patience is how long an answer is waited for.
	patience = time.Second
)

// flight is a question under way, at the place of its id.
type flight struct {
	question, socket int32
	sent             time.Duration // since 1970; 0: none is under way
}

type loader struct {
	load
	outcome
	sockets  []*batch
	polls    []unix.PollFd
	flights  []flight
	under    []int    // by socket, how many are under way
	buffers  [][]byte // by id, the packet
	id       uint16
	question int
}

// run asks, and returns when all is answered or lost.
func (l load) run() (*outcome, error) {
	r := &loader{load: l, flights: make([]flight, ids), under: make([]int, l.sockets)}
	longest := 0
	for _, q := range l.questions {
		longest = max(longest, len(q.packet))
	}
	flat := make([]byte, ids*longest)
	for i := range ids {
		r.buffers = append(r.buffers, flat[i*longest:(i+1)*longest:(i+1)*longest])
	}
	for range l.sockets {
		b, err := newBatch(l.server, max(l.window, 32))
		if err != nil {
			return nil, err
		}
		defer b.close()
		r.sockets = append(r.sockets, b)
		r.polls = append(r.polls, unix.PollFd{Fd: int32(b.fd), Events: unix.POLLIN})
	}
	done := make(chan error, 1)
	// A thread of its own, which ends with the goroutine: it stays where it was bound to.
	go func() {
		runtime.LockOSThread()
		if err := bind(0, l.cpu); err != nil {
			done <- err
			return
		}
		if l.rate > 0 {
			if *first {
				// It rests most of the time, so whoever else is there is not kept from running.
				attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}
				if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
					done <- fmt.Errorf("-first: %w", err)
					return
				}
			}
			done <- r.open()
		} else {
			done <- r.closed()
		}
	}()
	if err := <-done; err != nil {
		return nil, err
	}
	return &r.outcome, nil
}

// bind makes a thread, 0 for the calling one, run on one processor.
func bind(tid, cpu int) error {
	if cpu < 0 {
		return nil
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(tid, &set); err != nil {
		return fmt.Errorf("cannot run on processor %d: %w", cpu, err)
	}
	return nil
}

func now() time.Duration { return time.Duration(time.Now().UnixNano()) }

// closed keeps the windows full.
func (r *loader) closed() error {
	begin := now()
	end, looked := begin+r.lasts, begin
	for {
		t := now()
		if t >= end {
			break
		}
		busy := false
		for s := range r.sockets {
			n, err := r.take(s)
			if err != nil {
				return err
			}
			busy = busy || n > 0
			if err := r.ask(s, r.window-r.under[s], t); err != nil {
				return err
			}
		}
		if t-looked > patience {
			r.giveUp(t - patience)
			looked = t
		}
		if !busy {
			if err := r.wait(10 * time.Millisecond); err != nil {
				return err
			}
		}
	}
	r.took = now() - begin
	return r.drain()
}

// open asks at random moments, whose mean distance the rate gives.
func (r *loader) open() error {
	random := rand.New(rand.NewPCG(1, 2))
	begin := now()
	end, due := begin+r.lasts, begin
	for s := 0; ; {
		t := now()
		if t >= end {
			break
		}
		for due <= t {
			if err := r.ask(s, 1, now()); err != nil {
				return err
			}
			s = (s + 1) % len(r.sockets)
			due += time.Duration(random.ExpFloat64() / r.rate * 1e9)
		}
		for i := range r.polls {
			if r.polls[i].Revents == 0 {
				continue
			}
			if _, err := r.take(i); err != nil {
				return err
			}
		}
		if err := r.wait(due - now()); err != nil {
			return err
		}
	}
	r.took = now() - begin
	return r.drain()
}

// wait waits until there is something to take, for a limited time.
func (r *loader) wait(d time.Duration) error {
	ts := unix.NsecToTimespec(int64(max(d, 0)))
	if _, err := unix.Ppoll(r.polls, &ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("cannot wait for answers: %w", err)
	}
	return nil
}

// drain takes what is still under way, and counts as lost what does not come. What it takes is not answered in time for a
// rate, so a closed loop does not count it.
func (r *loader) drain() error {
	counted := r.answered
	for end := now() + patience; now() < end; {
		left := 0
		for s := range r.sockets {
			if _, err := r.take(s); err != nil {
				return err
			}
			left += r.under[s]
		}
		if left == 0 {
			break
		}
		if err := r.wait(10 * time.Millisecond); err != nil {
			return err
		}
	}
	r.giveUp(now())
	if r.rate == 0 {
		r.answered = counted
	}
	return nil
}

// giveUp counts as lost what was sent before.
func (r *loader) giveUp(before time.Duration) {
	for id := range r.flights {
		if f := &r.flights[id]; f.sent != 0 && f.sent <= before {
			r.lose(f)
		}
	}
}

func (r *loader) lose(f *flight) {
	r.lost++
	r.under[f.socket]--
	f.sent = 0
}

// ask sends the next n questions from one socket.
func (r *loader) ask(s, n int, t time.Duration) error {
	b := r.sockets[s]
	n = min(n, len(b.out))
	if n <= 0 {
		return nil
	}
	first, firstQuestion := r.id, r.question
	for i := range n {
		packet := append(r.buffers[r.id][:0], r.questions[r.question].packet...)
		binary.BigEndian.PutUint16(packet, r.id)
		b.put(i, packet)
		r.id++
		r.question = (r.question + 1) % len(r.questions)
	}
	taken, err := b.send(n)
	if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("cannot send: %w", err)
	}
	for i := range taken {
		f := &r.flights[first+uint16(i)]
		if f.sent != 0 {
			r.lose(f)
		}
		*f = flight{int32((firstQuestion + i) % len(r.questions)), int32(s), t}
	}
	r.under[s] += taken
	r.sent += uint64(taken)
	return nil
}

// take takes and checks what one socket has received.
func (r *loader) take(s int) (int, error) {
	b := r.sockets[s]
	all := 0
	for {
		n, err := b.receive()
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return 0, fmt.Errorf("cannot receive: %w", err)
		}
		for i := range n {
			r.check(s, b, i)
		}
		if all += n; n < len(b.in) {
			return all, nil
		}
	}
}

func (r *loader) check(s int, b *batch, i int) {
	data, when := b.at(i)
	if len(data) < 12 {
		r.refuse("%d bytes", len(data))
		return
	}
	f := &r.flights[binary.BigEndian.Uint16(data)]
	if f.sent == 0 || f.socket != int32(s) {
		r.stray++
		return
	}
	q := &r.questions[f.question]
	r.under[s]--
	sent := f.sent
	f.sent = 0
	end := len(q.packet)
	if q.packet[11] != 0 {
		end -= 11 // the OPT record
	}
	switch {
	case data[2]&0x82 != 0x80: // an answer, whole
		r.refuse("flags %x %x", data[2], data[3])
	case data[3]&0xf != q.rcode:
		r.refuse("rcode %d, want %d: %q", data[3]&0xf, q.rcode, q.packet[12:end])
	case binary.BigEndian.Uint16(data[6:]) < q.answers:
		r.refuse("%d answers, want %d: %q", binary.BigEndian.Uint16(data[6:]), q.answers, q.packet[12:end])
	case len(data) < end || !bytes.Equal(data[12:end], q.packet[12:end]):
		r.refuse("answer to another question: %q", data[12:])
	default:
		r.answered++
		r.bytes += uint64(len(data))
		r.latency.add(when - sent)
	}
}

// wholly tells whether all answers were right, and none came twice.
func (o *outcome) wholly() error {
	if o.answered == 0 || o.wrong > 0 || o.stray > o.lost {
		return fmt.Errorf("%d answers, %d wrong, %d astray: %s", o.answered, o.wrong, o.stray, o.complaint)
	}
	return nil
}

func (r *loader) refuse(format string, args ...any) {
	if r.wrong++; r.complaint == "" {
		r.complaint = fmt.Sprintf(format, args...)
	}
}
