package codec_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos/codec"
)

// protojsonCodec is what the budget is measured against; its JSON would be the wrong one.
type protojsonCodec struct{}

func (protojsonCodec) ContentType() string { return "protojson" }

func (protojsonCodec) Marshal(m proto.Message) ([]byte, error) { return protojson.Marshal(m) }

func (protojsonCodec) Append(dst []byte, m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.MarshalAppend(dst, m)
}

func (protojsonCodec) Unmarshal(data []byte, m proto.Message) error {
	return protojson.Unmarshal(data, m)
}

// Budget: JSON takes at most half of the time of protojson to write, and three quarters to read.
func BenchmarkCodec(b *testing.B) {
	messages := golden(b)
	for _, name := range []string{"offer", "task_info"} {
		m := messages["testdata/golden/"+name]
		for _, cd := range []codec.Codec{codec.JSON, protojsonCodec{}, codec.Protobuf} {
			data, err := cd.Marshal(m)
			if err != nil {
				b.Fatal(err)
			}
			b.Run("write/"+name+"/"+cd.ContentType(), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(data)))
				var buf []byte
				for b.Loop() {
					if buf, err = cd.Append(buf[:0], m); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("read/"+name+"/"+cd.ContentType(), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					if err := cd.Unmarshal(data, m.ProtoReflect().New().Interface()); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
