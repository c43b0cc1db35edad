package codec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"

	"starling/master/mesos/codec"
	_ "starling/master/mesos/executor"
	_ "starling/master/mesos/operator/agent"
	_ "starling/master/mesos/operator/master"
	_ "starling/master/mesos/resourceprovider"
	_ "starling/master/mesos/scheduler"
)

var update = flag.Bool("update", false, "rewrite the JSON golden files")

// golden reads the files of testdata/golden:
//
//	x.txtpb        the message in protobuf's text form, written by hand; its first line names the type
//	x.binpb        made of it by protoc --deterministic_output --encode, that is by another implementation than ours
//	x.json         as Mesos writes it; rewritten with -update
//	x.client.json  optional: as a client may send it
func golden(t testing.TB) map[string]proto.Message {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/*.txtpb")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	all := map[string]proto.Message{}
	for _, f := range files {
		text := readFile(t, f)
		head, _, _ := strings.Cut(string(text), "\n")
		m := newMessage(t, protoreflect.FullName(strings.TrimPrefix(head, "# proto-message: ")))
		if err := prototext.Unmarshal(text, m); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all[strings.TrimSuffix(f, ".txtpb")] = m
	}
	return all
}

func newMessage(t testing.TB, name protoreflect.FullName) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		t.Fatalf("%q: %v", name, err)
	}
	return mt.New().Interface()
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	for base, m := range golden(t) {
		t.Run(filepath.Base(base), func(t *testing.T) {
			got, err := codec.JSON.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(base+".json", append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want := bytes.TrimSuffix(readFile(t, base+".json"), []byte("\n"))
			if !bytes.Equal(got, want) {
				t.Errorf("JSON is\n%s\nwant\n%s", got, want)
			}
			wantBin := readFile(t, base+".binpb")
			if got, err := codec.Protobuf.Marshal(m); err != nil || !bytes.Equal(got, wantBin) {
				t.Errorf("protobuf is\n%x, %v\nwant\n%x", got, err, wantBin)
			}

			decoded := m.ProtoReflect().New().Interface()
			if err := codec.Protobuf.Unmarshal(wantBin, decoded); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, decoded, protocmp.Transform()); diff != "" {
				t.Errorf("from protobuf: (-want +got)\n%s", diff)
			}
			// JSON says defaults that were unset, so it comes back as itself, not as the message.
			fromJSON(t, m, want, want)
			client, err := os.ReadFile(base + ".client.json")
			if errors.Is(err, fs.ErrNotExist) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if decoded := fromJSON(t, m, client, want); !proto.Equal(decoded, m) {
				t.Errorf("from a client: (-want +got)\n%s", cmp.Diff(m, decoded, protocmp.Transform()))
			}
		})
	}
}

func fromJSON(t *testing.T, like proto.Message, in, want []byte) proto.Message {
	t.Helper()
	m := like.ProtoReflect().New().Interface()
	if err := codec.JSON.Unmarshal(in, m); err != nil {
		t.Fatal(err)
	}
	if got, err := codec.JSON.Marshal(m); err != nil || !bytes.Equal(got, want) {
		t.Errorf("decoded and encoded again:\n%s, %v\nwant\n%s", got, err, want)
	}
	return m
}

// Every message of the API, with every field set to something, survives both encodings, and protobuf's own JSON reader
// understands what we write. (That reader takes numbers for 64-bit integers; the other way round it would not do.)
func TestEveryMessage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	duration := regexp.MustCompile(`"(max_grace_period)":\{"seconds":`)
	types := 0
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		if !strings.HasPrefix(string(mt.Descriptor().FullName()), "mesos.v1.") || mt.Descriptor().IsMapEntry() {
			return true
		}
		types++
		m := mt.New()
		fill(rng, m, 4)
		msg := m.Interface()
		if proto.CheckInitialized(msg) != nil {
			t.Fatalf("%s was not filled", mt.Descriptor().FullName())
		}
		for _, cd := range []codec.Codec{codec.JSON, codec.JSONv0, codec.Protobuf} {
			data, err := cd.Marshal(msg)
			if err != nil {
				t.Errorf("%s: %v", mt.Descriptor().FullName(), err)
				continue
			}
			again := mt.New().Interface()
			if err := cd.Unmarshal(data, again); err != nil {
				t.Errorf("%s: %v in %s", mt.Descriptor().FullName(), err, data)
			}
			// Defaults inside messages at the last level are set on the way.
			second, err := cd.Marshal(again)
			if err != nil || !bytes.Equal(data, second) {
				t.Errorf("%s: %s became %s, %v", mt.Descriptor().FullName(), data, second, err)
			}
			if cd != codec.JSON {
				continue
			}
			if !json.Valid(data) {
				t.Errorf("%s: not JSON: %s", mt.Descriptor().FullName(), data)
			}
			if duration.Match(data) {
				continue // "10s" to protobuf's reader
			}
			theirs := mt.New().Interface()
			if err := protojson.Unmarshal(data, theirs); err != nil || !proto.Equal(theirs, again) {
				t.Errorf("%s: protojson: %v, (-ours +theirs)\n%s", mt.Descriptor().FullName(), err,
					cmp.Diff(again, theirs, protocmp.Transform()))
			}
		}
		return true
	})
	if types < 300 {
		t.Errorf("only %d types", types)
	}
}

// fill sets all fields of a message to random values, down to a depth where only what is required is set.
func fill(rng *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if depth <= 0 && fd.Cardinality() != protoreflect.Required {
			continue
		}
		switch {
		case fd.IsMap():
			values := m.Mutable(fd).Map()
			for range 2 {
				v := values.NewValue()
				if fd.MapValue().Message() != nil {
					fill(rng, v.Message(), depth-1)
				} else {
					v = random(rng, fd.MapValue())
				}
				values.Set(random(rng, fd.MapKey()).MapKey(), v)
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range 2 {
				if fd.Message() != nil {
					fill(rng, list.AppendMutable().Message(), depth-1)
				} else {
					list.Append(random(rng, fd))
				}
			}
		case fd.Message() != nil:
			fill(rng, m.Mutable(fd).Message(), depth-1)
		default:
			m.Set(fd, random(rng, fd))
		}
	}
}

func random(rng *rand.Rand, fd protoreflect.FieldDescriptor) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rng.IntN(2) == 0)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(rng.IntN(values.Len())).Number())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(rng.Uint32()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(rng.Uint64()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rng.Uint32())
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rng.Uint64())
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(rng.Float32())
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64((rng.Float64() - 0.5) * 1e9)
	case protoreflect.BytesKind:
		b := make([]byte, rng.IntN(20))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return protoreflect.ValueOfBytes(b)
	}
	runes := []rune("ab\"\\/\n\t\x00\x7fé漢😀 ")
	s := make([]rune, rng.IntN(8))
	for i := range s {
		s[i] = runes[rng.IntN(len(runes))]
	}
	return protoreflect.ValueOfString(string(s))
}
