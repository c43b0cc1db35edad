package api

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"starling/master"
)

// A document made of parts that were kept is the one that is made without keeping any, packed or not, and only what changed
// is encoded again.
func TestDocumentsShareParts(t *testing.T) {
	pages := make([]*master.TaskPage, 50)
	for i := range pages {
		pages[i] = new(master.TaskPage)
	}
	text := make(map[*master.TaskPage]string)
	encoded := 0
	write := func(w *jsonWriter) {
		w.string("id", "m")
		w.key("tasks")
		w.array(func() {
			for i, p := range pages {
				if text[p] == "" {
					text[p] = fmt.Sprintf("page %d of %d bytes %s", i, len(text), strings.Repeat("x", 5000))
				}
				w.elements(p, func(w *jsonWriter) {
					encoded++
					for range 3 {
						w.element()
						w.quote(text[p])
					}
				})
			}
		})
		w.bool("end", true)
	}
	var c cache
	for version := range uint64(5) {
		if version > 0 {
			pages[version*7] = new(master.TaskPage) // a changed page is another one
		}
		encoded = 0
		doc, hit, err := c.get("/state", version, write)
		if err != nil || hit {
			t.Fatalf("version %d: got hit %v, error %v", version, hit, err)
		}
		if want := map[bool]int{true: 50, false: 1}[version == 0]; encoded != want {
			t.Errorf("version %d: %d pages were encoded, want %d", version, encoded, want)
		}
		whole, err := newJSON().document(write)
		if err != nil {
			t.Fatal(err)
		}
		want := join(whole)
		if got := join(doc); !bytes.Equal(got, want) || !json.Valid(got) || doc.size != len(got) {
			t.Fatalf("version %d: got %d bytes, told as %d, want %d; valid: %v", version, len(got), doc.size, len(want), json.Valid(got))
		}
		packed, err := doc.pack()
		if err != nil {
			t.Fatal(err)
		}
		r, err := gzip.NewReader(bytes.NewReader(slices.Concat(packed...)))
		if err != nil {
			t.Fatal(err)
		}
		r.Multistream(false) // not every reader takes several streams for one
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("version %d: unpacked %d bytes, error %v, want %d", version, len(got), err, len(want))
		}
		if again, hit, err := c.get("/state", version, write); err != nil || !hit || again != doc {
			t.Errorf("version %d is encoded twice", version)
		}
	}
}

func join(d *document) []byte {
	var out []byte
	for _, p := range d.parts {
		out = append(out, p.plain...)
	}
	return out
}
