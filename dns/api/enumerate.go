package api

import (
	"hash/maphash"
	"slices"

	"github.com/gofiber/fiber/v2"

	"starling/dns/records"
)

// enumerate lists the frameworks with their tasks and what records each has brought. Names of the cluster are not among
// them. A record that several tasks have stands at the first of them alone; a task that brings nothing new has null.
func (a *API) enumerate(ctx *fiber.Ctx) error {
	return a.stream(ctx, func(p *printer) {
		zone := a.server.Zone()
		seen := seenRecords{seed: maphash.MakeSeed(), hashes: map[uint64]struct{}{}}
		p.open("{")
		p.key("frameworks")
		frameworks := a.server.Frameworks()
		if len(frameworks) == 0 {
			p.value(nil)
		} else {
			p.open("[")
			for _, f := range frameworks {
				p.next()
				p.open("{")
				p.key("tasks")
				p.open("[")
				for _, t := range f.Tasks {
					if p.failed() {
						return
					}
					p.next()
					p.task(t, seen.fresh(zone.TaskRecords(&t)))
				}
				p.close("]")
				p.member("name", f.Name)
				p.close("}")
			}
			p.close("]")
		}
		p.close("}")
	})
}

// task prints one task with its records.
func (p *printer) task(t records.Task, list []records.Record) {
	p.open("{")
	p.member("name", t.Name)
	p.member("id", t.ID)
	p.key("records")
	if len(list) == 0 {
		p.value(nil)
	} else {
		p.open("[")
		for _, r := range list {
			p.next()
			p.open("{")
			p.member("name", r.Name)
			p.member("host", text(r))
			p.member("rtype", r.Type.String())
			p.close("}")
		}
		p.close("]")
	}
	p.close("}")
}

// seenRecords remembers records by their hashes, since there may be hundreds of thousands.
type seenRecords struct {
	seed   maphash.Seed
	hashes map[uint64]struct{}
}

// fresh cuts a list down to the records that were not seen before.
func (s seenRecords) fresh(list []records.Record) []records.Record {
	return slices.DeleteFunc(list, func(r records.Record) bool {
		h := maphash.Comparable(s.seed, r)
		_, before := s.hashes[h]
		s.hashes[h] = struct{}{}
		return before
	})
}
