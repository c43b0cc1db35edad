package tcp

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Query is a query of a connection, as a Handler sees it.
type Query struct {
	// Message is the handler's own.
	Message []byte

	conn *conn
	made bool // there is an answer
}

// From is the client's address.
func (q *Query) From() netip.AddrPort { return q.conn.from }

// Send sends one message. After an error, which is also one of a client that does not read, the connection is closed. From
// the first message on the query takes no more of what all clients share: to wait for a client to read costs that one.
func (q *Query) Send(msg []byte) error {
	if len(msg) > 0xffff {
		return fmt.Errorf("cannot send a message of %d octets", len(msg))
	}
	q.done()
	return q.conn.send(msg)
}

func (q *Query) done() {
	if !q.made {
		q.made = true
		<-q.conn.server.slots
	}
}

// conn is a client's connection.
type conn struct {
	server *Server
	raw    net.Conn
	from   netip.AddrPort
	addr   netip.Addr // what PerClient counts by
	client *client
	slots  chan struct{} // one for each query in flight; never closed

	write   sync.Mutex // an answer is written whole
	pending atomic.Int64
	// idleSince is when the connection began, the last query began to arrive or the last answer was made, in Unix
	// nanoseconds; writingSince when the answer that is being written was begun, 0 for none.
	idleSince, writingSince atomic.Int64
}

func (c *conn) send(msg []byte) error {
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(msg)), uint16(len(msg))), msg...)
	c.write.Lock()
	defer c.write.Unlock()
	now := time.Now()
	c.writingSince.Store(now.UnixNano())
	defer c.writingSince.Store(0)
	_ = c.raw.SetWriteDeadline(now.Add(c.server.limits.Write))
	if _, err := c.raw.Write(framed); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.server.timedOut.Add(1)
		}
		// What follows would be read as the rest of this message.
		c.raw.Close()
		return err
	}
	return nil
}

// stall is how long a client may not read before its connection counts as idle where others want its place.
const stall = time.Second

// restsSince tells since when a connection has been idle, or its client has not read.
func (c *conn) restsSince(now time.Time) (since int64, rests bool) {
	if w := c.writingSince.Load(); w != 0 && now.UnixNano()-w >= int64(stall) {
		return w, true
	}
	return c.idleSince.Load(), c.pending.Load() == 0
}

// serve reads queries until the client has no more, a limit is reached or ctx ends, and returns when all are answered.
// Handlers run under the slow context.
func (c *conn) serve(ctx, slow context.Context) {
	slow, cancel := context.WithCancel(slow)
	var handlers sync.WaitGroup
	defer func() {
		handlers.Wait()
		cancel()
		c.raw.Close()
		c.server.mu.Lock()
		c.server.leave(c)
		c.server.mu.Unlock()
	}()
	r := bufio.NewReaderSize(c.raw, 512)
	for range c.server.limits.Queries {
		query, err := c.read(ctx, r)
		if err != nil {
			return
		}
		if !c.take(slow) {
			return
		}
		c.server.queries.Add(1)
		handlers.Go(func() {
			q := &Query{Message: query, conn: c}
			defer c.release(q)
			c.server.handler(slow, q)
		})
	}
}

// take waits for a place among this connection's queries, its client's, and then all. To wait is what slows a client down.
func (c *conn) take(ctx context.Context) bool {
	for _, slots := range []chan struct{}{c.slots, c.client.slots, c.server.slots} {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return false
		}
	}
	c.pending.Add(1)
	return true
}

func (c *conn) release(q *Query) {
	q.done()
	c.idleSince.Store(time.Now().UnixNano())
	c.pending.Add(-1)
	<-c.client.slots
	<-c.slots
}

var errLength = errors.New("bad length")

// read reads the next query.
func (c *conn) read(ctx context.Context, r *bufio.Reader) ([]byte, error) {
	for {
		if err := c.deadline(ctx, c.server.limits.Idle); err != nil {
			return nil, err
		}
		_, err := r.Peek(1)
		if err == nil {
			break
		}
		// Who waits for an answer is not idle, and an answer that came lately begins the time anew.
		busy := c.pending.Load() > 0 || time.Since(time.Unix(0, c.idleSince.Load())) < c.server.limits.Idle
		if ctx.Err() != nil || !errors.Is(err, os.ErrDeadlineExceeded) || !busy {
			return nil, err
		}
	}
	c.idleSince.Store(time.Now().UnixNano())
	// The whole query must be here in time, however many octets come each second.
	if err := c.deadline(ctx, c.server.limits.Message); err != nil {
		return nil, err
	}
	query, err := readMessage(r)
	switch {
	case errors.Is(err, errLength):
		c.server.malformed.Add(1)
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil:
		c.server.timedOut.Add(1)
	}
	return query, err
}

// deadline sets how long reading may take, unless the server is to end: its own deadline stays.
func (c *conn) deadline(ctx context.Context, d time.Duration) error {
	if err := c.raw.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	return ctx.Err()
}

func readMessage(r *bufio.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n < 12 || n > maxQuery {
		return nil, errLength
	}
	query := make([]byte, n)
	_, err := io.ReadFull(r, query)
	return query, err
}
