// Package codec turns the messages of the Mesos v1 API into bytes and back, in the two forms that clients may choose
// by content type: JSON as Mesos writes and reads it, and binary protobuf.
//
// Mesos' JSON is older than the mapping that protobuf defines today and differs from it: names are those of the
// definition (snake_case), 64-bit integers are numbers, explicit defaults are written even when unset, and reading is
// lenient (unknown members and unknown enum names are skipped, numbers may come as strings, a lone value stands for a
// list of one). The rules are in the specification's mesos-messages.md, section 1.2. Each message type is compiled
// once into a plan, which both directions then follow.
//
// Both codecs check that required fields are present, in both directions, so that what Unmarshal accepted can be
// handed to a strict client again. All functions may be called concurrently. A [SyntaxError] says that bytes are no
// JSON (or no protobuf) at all, a [FieldError] that a value does not fit its field, a [RequiredError] what is missing.
package codec

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
)

// The content types of the two encodings, and that of a stream of records (package recordio) of either.
const (
	TypeJSON     = "application/json"
	TypeProtobuf = "application/x-protobuf"
	TypeRecordIO = "application/recordio"
)

// Codec is one encoding of messages.
type Codec interface {
	// ContentType is the media type, without parameters.
	ContentType() string
	// Marshal encodes m. It fails with a *RequiredError when m lacks a required field.
	Marshal(m proto.Message) ([]byte, error)
	// Append is Marshal into the spare capacity of dst. On an error dst is returned as it was.
	Append(dst []byte, m proto.Message) ([]byte, error)
	// Unmarshal replaces what is in m by what data holds; m keeps nothing of data afterwards. On an error m's content
	// is undefined.
	Unmarshal(data []byte, m proto.Message) error
}

// The codecs. They hold nothing but caches of message plans.
var (
	// JSON reads and writes Mesos' JSON with the names of the v1 API.
	JSON Codec = &jsonCodec{}
	// JSONv0 is JSON with the names of the unversioned API, in which an agent is a "slave"; the older endpoints use it.
	JSONv0 Codec = &jsonCodec{planCache{rename: nameV0}}
	// Protobuf reads and writes binary protobuf.
	Protobuf Codec = protobufCodec{}
)

// SyntaxError says that bytes are not in the encoding at all.
type SyntaxError struct {
	// Offset is where it was noticed, in bytes; 0 when it is not known.
	Offset int
	// Reason is a phrase for people.
	Reason string
}

func (e *SyntaxError) Error() string {
	if e.Offset > 0 {
		return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset)
	}
	return e.Reason
}

// FieldError says that a JSON value does not fit the field that it is meant for.
type FieldError struct {
	// Path leads to the field, as in "launch.task_infos[0].name".
	Path string
	// Reason names the field and what was wrong with the value.
	Reason string
}

func (e *FieldError) Error() string { return e.Reason }

// RequiredError lists the required fields that a message lacks.
type RequiredError struct {
	// Fields are paths as in FieldError, sorted the way the fields are defined.
	Fields []string
}

func (e *RequiredError) Error() string {
	return "Missing required fields: " + strings.Join(e.Fields, ", ")
}

// ByContentType finds the codec for the value of a Content-Type header. Letter case and parameters do not count.
func ByContentType(contentType string) (Codec, bool) {
	media, _, _ := strings.Cut(contentType, ";")
	switch media = strings.TrimSpace(media); {
	case strings.EqualFold(media, TypeJSON):
		return JSON, true
	case strings.EqualFold(media, TypeProtobuf):
		return Protobuf, true
	}
	return nil, false
}

// Accept chooses the codec of an answer by the value of an Accept header: the first of JSON and protobuf that the
// header allows. An empty header allows everything. Beyond zero and not zero, q values do not count.
func Accept(header string) (Codec, bool) {
	for _, c := range []Codec{JSON, Protobuf} {
		if Accepts(header, c.ContentType()) {
			return c, true
		}
	}
	return nil, false
}

// Accepts tells whether an Accept header allows a media type. The most specific range that matches decides, so that
// "application/json;q=0, */*" does not allow JSON.
func Accepts(header, media string) bool {
	if strings.TrimSpace(header) == "" {
		return true
	}
	major, _, _ := strings.Cut(media, "/")
	best, allowed := -1, false
	for one := range strings.SplitSeq(header, ",") {
		name, params, _ := strings.Cut(one, ";")
		name = strings.TrimSpace(name)
		rank := -1
		switch {
		case strings.EqualFold(name, media):
			rank = 2
		case len(name) == len(major)+2 && strings.EqualFold(name, major+"/*"):
			rank = 1
		case name == "*/*" || name == "*":
			rank = 0
		}
		if rank < 0 || rank < best {
			continue
		}
		ok := !zeroQuality(params)
		if rank == best {
			ok = ok || allowed
		}
		best, allowed = rank, ok
	}
	return allowed
}

// zeroQuality tells whether the parameters of a media range say q=0.
func zeroQuality(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		k, v, ok := strings.Cut(strings.TrimSpace(p), "=")
		if ok && strings.EqualFold(strings.TrimSpace(k), "q") {
			return strings.Trim(strings.TrimSpace(v), "0.") == "" && strings.Contains(v, "0")
		}
	}
	return false
}
