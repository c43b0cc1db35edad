package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/proto"
)

// The layout of a frame, all numbers big-endian:
//
//	0  4 bytes  "STAR"
//	4  1 byte   format version, see history
//	5  1 byte   kind
//	6  2 bytes  zero
//	8  4 bytes  length of the payload
//	12 4 bytes  CRC-32C of the 12 bytes before and of the payload
//	16          payload
//
// History: 1  2026-11  first version.
const (
	frameVersion = 1
	frameHeader  = 16
)

var (
	frameMagic = [4]byte{'S', 'T', 'A', 'R'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// kind tells what message a frame holds.
type kind byte

const (
	kindIdentity  kind = 1
	kindEpoch     kind = 2
	kindTask      kind = 3
	kindState     kind = 4
	kindDrain     kind = 6
	kindGone      kind = 7
	kindResources kind = 5
	kindExecutor  kind = 8
	kindRun       kind = 9
	kindNested    kind = 10
)

// errCorrupt is the class of all errors of unframe but a newer version's.
var errCorrupt = errors.New("corrupt")

// frame encodes a message.
func frame(k kind, m proto.Message) ([]byte, error) {
	buf := make([]byte, frameHeader, frameHeader+512)
	buf, err := proto.MarshalOptions{}.MarshalAppend(buf, m)
	if err != nil {
		return nil, fmt.Errorf("cannot encode: %w", err)
	}
	copy(buf, frameMagic[:])
	buf[4], buf[5] = frameVersion, byte(k)
	binary.BigEndian.PutUint32(buf[8:], uint32(len(buf)-frameHeader))
	binary.BigEndian.PutUint32(buf[12:], checksum(buf))
	return buf, nil
}

func checksum(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[:12], castagnoli), castagnoli, frame[frameHeader:])
}

// unframe decodes what frame made into m, which must be of the kind given.
func unframe(data []byte, k kind, m proto.Message) error {
	switch {
	case len(data) == 0:
		return fmt.Errorf("%w: empty", errCorrupt)
	case len(data) < frameHeader:
		return fmt.Errorf("%w: only %d bytes", errCorrupt, len(data))
	case [4]byte(data[:4]) != frameMagic:
		return fmt.Errorf("%w: does not begin with %q", errCorrupt, frameMagic[:])
	case uint32(len(data)-frameHeader) != binary.BigEndian.Uint32(data[8:]):
		return fmt.Errorf("%w: %d bytes of payload where %d were written", errCorrupt, len(data)-frameHeader,
			binary.BigEndian.Uint32(data[8:]))
	case checksum(data) != binary.BigEndian.Uint32(data[12:]):
		return fmt.Errorf("%w: the checksum does not match", errCorrupt)
	case data[4] > frameVersion:
		return fmt.Errorf("written by a newer release: format version %d, known is %d", data[4], frameVersion)
	case kind(data[5]) != k:
		return fmt.Errorf("%w: kind %d where %d is expected", errCorrupt, data[5], k)
	}
	// Required fields of the Mesos messages inside were checked when they came in.
	if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(data[frameHeader:], m); err != nil {
		return fmt.Errorf("%w: %v", errCorrupt, err)
	}
	return nil
}

// lastState returns the newest state that reads of a row of frames, nil for none, and an error if anything does not read.
// After damage it goes on at the next thing that looks like the beginning of a frame.
func lastState(data []byte) (*State, error) {
	var last *State
	var fault error
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: empty", errCorrupt)
	}
	for len(data) > 0 {
		end := len(data)
		if len(data) >= frameHeader {
			if length := binary.BigEndian.Uint32(data[8:]); uint64(length) <= uint64(len(data)-frameHeader) {
				end = frameHeader + int(length)
			}
		}
		state := &State{}
		err := unframe(data[:end], kindState, state)
		if err == nil {
			last, data = state, data[end:]
			continue
		}
		if fault == nil || !errors.Is(err, errCorrupt) {
			fault = err
		}
		next := bytes.Index(data[1:], frameMagic[:])
		if next < 0 {
			break
		}
		data = data[1+next:]
	}
	return last, fault
}
