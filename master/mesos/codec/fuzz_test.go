package codec_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos/codec"
	"starling/master/mesos/scheduler"
)

// What is read is JSON, and is written in a form that reads as the same.
func FuzzJSON(f *testing.F) {
	for _, m := range golden(f) {
		data, err := codec.JSON.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []proto.Message{&scheduler.Call{}, &scheduler.Event{}} {
			if codec.JSON.Unmarshal(data, m) != nil {
				continue
			}
			if !json.Valid(data) {
				t.Fatalf("%q is taken for JSON", data)
			}
			first := roundTrip(t, codec.JSON, m)
			if second := roundTrip(t, codec.JSON, m); !bytes.Equal(first, second) {
				t.Fatalf("%s became %s", first, second)
			}
		}
	})
}

func FuzzProtobuf(f *testing.F) {
	for _, m := range golden(f) {
		data, err := codec.Protobuf.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range []proto.Message{&scheduler.Call{}, &scheduler.Event{}} {
			if codec.Protobuf.Unmarshal(data, m) != nil {
				continue
			}
			again := m.ProtoReflect().New().Interface()
			if err := codec.Protobuf.Unmarshal(roundTrip(t, codec.Protobuf, m), again); err != nil {
				t.Fatal(err)
			}
			// What came in as protobuf can be told to a client that speaks JSON.
			roundTrip(t, codec.JSON, m)
		}
	})
}

// roundTrip encodes m, decodes it into m again, and gives the bytes.
func roundTrip(t *testing.T, cd codec.Codec, m proto.Message) []byte {
	data, err := cd.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := cd.Unmarshal(data, m); err != nil {
		t.Fatalf("%v in %q", err, data)
	}
	return data
}
