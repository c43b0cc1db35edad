package api

import (
	"iter"
	"slices"
	"strconv"

	"github.com/gofiber/fiber/v2"

	"starling/dns/records"
)

// axfr lists the records of all names in the domain, as they were at the serial number that it tells. The names are in no
// order: sorting them would cost more than all the rest.
func (a *API) axfr(ctx *fiber.Ctx) error {
	return a.stream(ctx, func(p *printer) { p.zone(a.server.Zone(), a.settings.RefreshSeconds) })
}

// zone prints a whole zone.
func (p *printer) zone(z *records.Zone, refresh int) {
	serial, all := z.Transfer()
	soa := z.SOA()
	p.open("{")
	p.member("TTL", z.Config().TTL)
	p.member("Serial", serial)
	p.member("RefreshSeconds", refresh)
	p.member("Mname", soa.Mname)
	p.member("Rname", soa.Rname)
	p.member("Domain", z.Config().Domain)
	p.key("Records")
	p.open("{")
	for _, set := range []struct {
		name string
		of   records.Type
	}{{"As", records.A}, {"AAAAs", records.AAAA}, {"SRVs", records.SRV}} {
		p.key(set.name)
		p.open("{")
		p.names(all, set.of)
		p.close("}")
	}
	p.close("}")
	p.close("}")
}

// names prints the values of one type of each name, as the members of an object. Records of a name follow each other.
func (p *printer) names(all iter.Seq[records.Record], of records.Type) {
	owner, values := "", []string(nil)
	flush := func() {
		if len(values) == 0 {
			return
		}
		slices.Sort(values)
		p.key(owner)
		p.open("[")
		for _, v := range values {
			p.next()
			p.value(v)
		}
		p.close("]")
		values = values[:0]
	}
	for r := range all {
		if r.Type != of {
			continue
		}
		if p.failed() {
			return
		}
		if r.Name != owner {
			flush()
			owner = r.Name
		}
		values = append(values, text(r))
	}
	flush()
}

// text is the value of a record in the way of Mesos-DNS.
func text(r records.Record) string {
	if r.Type == records.SRV {
		return r.Target + ":" + strconv.Itoa(int(r.Port))
	}
	return r.Addr.String()
}
