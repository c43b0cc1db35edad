package record

import (
	"slices"
	"strings"
	"time"
)

// item is one entry of a record. It is never modified once it is in a table.
type item struct {
	key     string
	value   []byte
	ext     string // bytes that a newer version of the format added to the entry: kept and passed on
	version uint64
	// born is when the change was made, by the clock of this Map: see Map.clock. It is 0 where nobody told.
	born    time.Duration
	deleted bool
}

func (it *item) size() int { return len(it.key) + len(it.value) + len(it.ext) }

// The size of a page is a compromise: a change copies one page and the list of pages, so with n items about
// n/pageMax + pageMax pointers.
const pageMax = 64

// table is a sorted map that is cheap to copy: pages of items in order of keys. Snapshots share pages with their successors,
// so neither a page nor the list of pages is modified once a table has been published; an editor makes the next one.
type table struct {
	pages [][]*item // none is empty
	n     int       // all items
	live  int       // without tombstones
	bytes int
}

// itemCost is what an item takes in memory beside its bytes.
const itemCost = 96

// cost is about what the table takes in memory.
func (t *table) cost() int { return t.bytes + itemCost*t.n }

// locate returns the page and the index where key is or would be inserted.
func (t *table) locate(key string) (page, index int, found bool) {
	page, found = slices.BinarySearchFunc(t.pages, key, func(p []*item, k string) int { return strings.Compare(p[0].key, k) })
	if found {
		return page, 0, true
	}
	if page == 0 {
		return 0, 0, false
	}
	page--
	index, found = slices.BinarySearchFunc(t.pages[page], key, func(it *item, k string) int { return strings.Compare(it.key, k) })
	return page, index, found
}

func (t *table) get(key string) *item {
	if p, i, ok := t.locate(key); ok {
		return t.pages[p][i]
	}
	return nil
}

// ascend calls yield for every item from key on, tombstones included, until it returns false.
func (t *table) ascend(key string, yield func(*item) bool) {
	p, i, _ := t.locate(key)
	for ; p < len(t.pages); p, i = p+1, 0 {
		for ; i < len(t.pages[p]); i++ {
			if !yield(t.pages[p][i]) {
				return
			}
		}
	}
}

// editor makes a new table out of an old one: it copies the list of pages at once and a page when it is first changed.
type editor struct {
	table
	owned []bool // by page: it was made by this editor
}

func (t *table) edit() *editor {
	return &editor{
		table: table{pages: slices.Clone(t.pages), n: t.n, live: t.live, bytes: t.bytes},
		owned: make([]bool, len(t.pages)),
	}
}

// own makes a page writable, with room for one more item.
func (e *editor) own(p int) {
	if !e.owned[p] {
		e.pages[p] = append(make([]*item, 0, len(e.pages[p])+1), e.pages[p]...)
		e.owned[p] = true
	}
}

func (e *editor) count(it *item, sign int) {
	e.n += sign
	e.bytes += sign * it.size()
	if !it.deleted {
		e.live += sign
	}
}

// put adds an item or replaces the one of the same key, which it returns.
func (e *editor) put(it *item) (old *item) {
	e.count(it, 1)
	if len(e.pages) == 0 {
		e.pages, e.owned = append(e.pages, []*item{it}), append(e.owned, true)
		return nil
	}
	p, i, found := e.locate(it.key)
	e.own(p)
	if found {
		old = e.pages[p][i]
		e.pages[p][i] = it
		e.count(old, -1)
		return old
	}
	e.pages[p] = slices.Insert(e.pages[p], i, it)
	if page := e.pages[p]; len(page) > pageMax {
		half := len(page) / 2
		e.pages = slices.Insert(e.pages, p+1, slices.Clone(page[half:]))
		e.owned = slices.Insert(e.owned, p+1, true)
		e.pages[p] = page[:half:half]
	}
	return nil
}

// remove takes the item of a key out, without a tombstone.
func (e *editor) remove(key string) {
	p, i, found := e.locate(key)
	if !found {
		return
	}
	e.count(e.pages[p][i], -1)
	e.own(p)
	e.pages[p] = slices.Delete(e.pages[p], i, i+1)
	switch {
	case len(e.pages[p]) == 0:
		e.drop(p)
	case p+1 < len(e.pages) && len(e.pages[p])+len(e.pages[p+1]) <= pageMax/2:
		e.pages[p] = append(e.pages[p], e.pages[p+1]...)
		e.drop(p + 1)
	}
}

func (e *editor) drop(p int) {
	e.pages = slices.Delete(e.pages, p, p+1)
	e.owned = slices.Delete(e.owned, p, p+1)
}
