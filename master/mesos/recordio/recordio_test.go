package recordio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"starling/master/mesos/recordio"
)

func Example() {
	stream := recordio.Append(nil, []byte(`{"type":"HEARTBEAT"}`))
	stream = recordio.Append(stream, []byte("second"))

	r := recordio.NewReader(bytes.NewReader(stream), 1<<20)
	for {
		record, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		fmt.Printf("%s\n", record)
	}
	// Output:
	// {"type":"HEARTBEAT"}
	// second
}

func TestReader(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		max      int
		want     []string
		err      error
	}{
		{name: "an empty stream ends", err: io.EOF},
		{name: "records follow each other at once", in: "3\nabc1\nx", want: []string{"abc", "x"}, err: io.EOF},
		{name: "an empty record is one", in: "0\n2\nhi", want: []string{"", "hi"}, err: io.EOF},
		{name: "leading zeros are digits", in: "003\nabc", want: []string{"abc"}, err: io.EOF},
		{name: "a record of just the limit", in: "4\nabcd", max: 4, want: []string{"abcd"}, err: io.EOF},
		{name: "the end within the length", in: "12", err: io.ErrUnexpectedEOF},
		{name: "the end within a record", in: "5\nabc", err: io.ErrUnexpectedEOF},
		{name: "no digits", in: "\nabc", err: recordio.ErrMalformed},
		{name: "a carriage return", in: "3\r\nabc", err: recordio.ErrMalformed},
		{name: "a sign", in: "-3\nabc", err: recordio.ErrMalformed},
		{name: "more digits than fit", in: "12345678901234567890\n", err: recordio.ErrMalformed},
		{name: "a fault after good records", in: "1\nax", want: []string{"a"}, err: recordio.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// One byte at a time, as chunk borders may be anywhere.
			r := recordio.NewReader(iotest.OneByteReader(strings.NewReader(tc.in)), tc.max)
			for _, want := range tc.want {
				got, err := r.Next()
				if err != nil || string(got) != want {
					t.Fatalf("Next() = %q, %v; want %q", got, err, want)
				}
			}
			for range 2 { // an error stays
				if got, err := r.Next(); !errors.Is(err, tc.err) {
					t.Fatalf("Next() = %q, %v; want error %v", got, err, tc.err)
				}
			}
		})
	}
}

func TestReaderRefusesLargeRecordsBeforeReadingThem(t *testing.T) {
	r := recordio.NewReader(strings.NewReader("1000000000000\nx"), 10)
	_, err := r.Next()
	large, ok := errors.AsType[*recordio.TooLargeError](err)
	if !ok || large.Size != 1_000_000_000_000 || large.Max != 10 {
		t.Fatalf("Next() = %v, want a TooLargeError with the size and the limit", err)
	}
}

// A length that promises much and is followed by nothing costs no memory.
func TestReaderGrowsWithWhatArrives(t *testing.T) {
	if allocated := testing.AllocsPerRun(1, func() {
		r := recordio.NewReader(strings.NewReader("60000000\nabc"), 0)
		if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Next() = %v, want the end", err)
		}
	}); allocated > 20 {
		t.Errorf("%v allocations", allocated)
	}
}

func TestReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	r := recordio.NewReader(io.MultiReader(strings.NewReader("5\nab"), iotest.ErrReader(broken)), 0)
	if _, err := r.Next(); !errors.Is(err, broken) {
		t.Fatalf("Next() = %v, want %v", err, broken)
	}
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{"", "3\nabc1\nx", "0\n0\n", "12", "9999999999\nx", "3\r\nabc", "\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := recordio.NewReader(bytes.NewReader(in), 1<<16)
		var again []byte
		for {
			rec, err := r.Next()
			if err != nil {
				break
			}
			if len(rec) > 1<<16 {
				t.Fatalf("record of %d bytes", len(rec))
			}
			again = recordio.Append(again, rec)
		}
		// What was read and framed again is the beginning of what was there, unless lengths had leading zeros.
		canonical := !bytes.Contains(in, []byte("0"))
		if canonical && !bytes.HasPrefix(in, again) {
			t.Fatalf("read %q from %q", again, in)
		}
	})
}
