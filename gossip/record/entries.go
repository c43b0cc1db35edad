package record

import "iter"

// Entry is one key of a record with its value, which must not be modified, and the version that wrote it.
type Entry struct {
	Key     string
	Value   []byte
	Version uint64
}

// Entry returns the entry of a key; ok is false where there is none.
func (s *Snapshot) Entry(key string) (e Entry, ok bool) {
	it := s.table.get(key)
	if it == nil || it.deleted {
		return Entry{}, false
	}
	return Entry{it.key, it.value, it.version}, true
}

// Entries iterates over all entries in order of keys, without deleted ones.
func (s *Snapshot) Entries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		s.table.ascend("", func(it *item) bool {
			return it.deleted || yield(Entry{it.key, it.value, it.version})
		})
	}
}
