package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"

	"starling/master/store"
)

// The file:
//
//	starling                       what this is
//	  format                       "1"
//	documents                      its sequence is the last version given to any key
//	  <key>                        version (8 bytes, big endian), checksum (4 bytes), data
//
// The checksum is CRC-32C over key, version and data: bbolt checks its meta pages alone.
//
// History of the format:
//
//	1  2026-11  first version
var (
	bucketStarling  = []byte("starling")
	bucketDocuments = []byte("documents")
	keyFormat       = []byte("format")
	castagnoli      = crc32.MakeTable(crc32.Castagnoli)
)

const (
	formatNow = "1"
	header    = 8 + 4
)

// format makes an empty store of a new file.
func format(tx *bbolt.Tx) error {
	b, err := tx.CreateBucket(bucketStarling)
	if err != nil {
		return err
	}
	if err := b.Put(keyFormat, []byte(formatNow)); err != nil {
		return err
	}
	_, err = tx.CreateBucket(bucketDocuments)
	return err
}

// check reads all of a store.
func (s *Store) check(tx *bbolt.Tx) error {
	b := tx.Bucket(bucketStarling)
	if b == nil {
		return errors.New("it is a database of some other program")
	}
	if f := string(b.Get(keyFormat)); f != formatNow {
		return fmt.Errorf("its format is %q, known is %q: was it written by a newer version?", f, formatNow)
	}
	docs := tx.Bucket(bucketDocuments)
	if docs == nil {
		return errors.New("it has no documents bucket")
	}
	last := docs.Sequence()
	return docs.ForEach(func(key, value []byte) error {
		version, _, err := decode(key, value)
		if err != nil {
			return err
		}
		if version > last || version == 0 {
			return fmt.Errorf("document %q has version %d, the last one given was %d", key, version, last)
		}
		return store.CheckKey(string(key))
	})
}

func encode(key []byte, version uint64, data []byte) []byte {
	out := make([]byte, header, header+len(data))
	binary.BigEndian.PutUint64(out, version)
	out = append(out, data...)
	binary.BigEndian.PutUint32(out[8:], checksum(key, out))
	return out
}

// decode returns a copy of the data.
func decode(key, value []byte) (version uint64, data []byte, err error) {
	if len(value) < header {
		return 0, nil, fmt.Errorf("document %q has %d bytes, too few", key, len(value))
	}
	if binary.BigEndian.Uint32(value[8:]) != checksum(key, value) {
		return 0, nil, fmt.Errorf("document %q is damaged: its checksum is wrong", key)
	}
	return binary.BigEndian.Uint64(value), append([]byte{}, value[header:]...), nil
}

func checksum(key, value []byte) uint32 {
	sum := crc32.Checksum(key, castagnoli)
	sum = crc32.Update(sum, castagnoli, value[:8])
	return crc32.Update(sum, castagnoli, value[header:])
}
