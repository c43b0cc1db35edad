package event

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

var noon = time.Date(2024, 5, 4, 12, 0, 0, 123456789, time.UTC)

func TestEncodeAddsTypeAndTime(t *testing.T) {
	f, err := Encode(noon, AppTerminated{AppID: "/shop/web"})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"eventType":"app_terminated_event","timestamp":"2024-05-04T12:00:00.123Z","appId":"/shop/web"}`
	if string(f.Data) != want {
		t.Errorf("got %s, want %s", f.Data, want)
	}
	f, err = Encode(noon, SchedulerDisconnected{})
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(f.Data) {
		t.Errorf("event without fields is not JSON: %s", f.Data)
	}
}

func TestEncodeRefusesWhatIsNoObject(t *testing.T) {
	if _, err := Encode(noon, APIPost{AppDefinition: json.RawMessage("{")}); err == nil {
		t.Error("broken definition was encoded")
	}
}

func TestBusKeepsOrderAndFilters(t *testing.T) {
	var b Bus
	all, some := b.Subscribe(0), b.Subscribe(0, "b")
	for _, typ := range []string{"a", "b", "c", "b"} {
		b.Publish(Frame{Type: typ})
	}
	if got := drain(t, all); got != "abcb" {
		t.Errorf("all events: got %q, want %q", got, "abcb")
	}
	if got := drain(t, some); got != "bb" {
		t.Errorf("filtered events: got %q, want %q", got, "bb")
	}
}

// A client that does not know a type of ours must not meet it unasked.
func TestEventsThatMarathonHasNotAreForThoseWhoNameThem(t *testing.T) {
	var b Bus
	all, some := b.Subscribe(0), b.Subscribe(0, "starling_x", "b")
	for _, typ := range []string{"a", "starling_x", "starling_y", "b"} {
		b.Publish(Frame{Type: typ})
	}
	if got := drain(t, all); got != "ab" {
		t.Errorf("all events: got %q, want %q", got, "ab")
	}
	if got := drain(t, some); got != "starling_xb" {
		t.Errorf("named events: got %q, want %q", got, "starling_xb")
	}
}

func TestSlowReaderIsCutOffAlone(t *testing.T) {
	var b Bus
	slow, other := b.Subscribe(3), b.Subscribe(100)
	for range 10 {
		b.Publish(Frame{Type: "a"})
	}
	if _, err := slow.Next(t.Context()); !errors.Is(err, ErrSlow) {
		t.Errorf("slow reader: got %v, want %v", err, ErrSlow)
	}
	if got := drain(t, other); len(got) != 10 {
		t.Errorf("other reader got %d events, want 10", len(got))
	}
	if got := b.Listeners(); got != 1 {
		t.Errorf("listeners after the cut: got %d, want 1", got)
	}
}

func TestCloseEndsWaitingReaders(t *testing.T) {
	var b Bus
	s := b.Subscribe(0)
	done := make(chan error, 1)
	go func() {
		_, err := s.Next(context.Background())
		done <- err
	}()
	b.Close()
	select {
	case err := <-done:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want %v", err, ErrClosed)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("reader still waits after the bus was closed")
	}
	if _, err := b.Subscribe(0).Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("subscription to a closed bus: got %v, want %v", err, ErrClosed)
	}
	s.Close()
}

func TestNextEndsWithTheContext(t *testing.T) {
	var b Bus
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := b.Subscribe(0).Next(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

func drain(t *testing.T, s *Subscription) string {
	t.Helper()
	frames, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, f := range frames {
		got += f.Type
	}
	return got
}
