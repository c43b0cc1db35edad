package master

import (
	"slices"
	"testing"
)

// Writes of one document keep their order, and the newest of them is written last, whatever waits.
func TestKeeperKeepsOrder(t *testing.T) {
	k := newKeeper(nil, nil, nil, nil)
	put := func(data string, waits bool, keys ...string) {
		var docs []keptDoc
		for _, key := range keys {
			docs = append(docs, keptDoc{key: key, data: []byte(data)})
		}
		var done func()
		if waits {
			done = func() {}
		}
		k.put(done, docs...)
	}
	put("1", false, "a")
	put("2", false, "b")
	put("3", true, "a", "c")
	put("4", false, "a")
	put("5", false, "b")
	put("6", false, "a")
	put("7", false)
	var got []string
	for w, ok := k.take(); ok; w, ok = k.take() {
		for _, d := range w.docs {
			got = append(got, d.key+string(d.data))
		}
	}
	if want := []string{"a1", "b5", "a3", "c3", "a6"}; !slices.Equal(got, want) {
		t.Errorf("written: %v, want %v", got, want)
	}
}
