package api

import (
	"strconv"
	"strings"
)

// acceptsJSON reads the Accept headers of a request (RFC 9110, 12.5.1). None, or none that reads, takes everything. The
// most specific range that matches JSON decides; one with a weight of zero refuses it.
func acceptsJSON(headers [][]byte) bool {
	best, accepted, any := 0, false, false
	for _, header := range headers {
		for one := range strings.SplitSeq(string(header), ",") {
			parts := strings.Split(one, ";")
			mime := strings.ToLower(strings.TrimSpace(parts[0]))
			if mime == "" {
				continue
			}
			any = true
			specific := 0
			switch mime {
			case "*/*", "*":
				specific = 1
			case "application/*":
				specific = 2
			case "application/json":
				specific = 3
			}
			if specific == 0 {
				continue
			}
			wanted := weight(parts[1:]) > 0
			switch {
			case specific > best:
				best, accepted = specific, wanted
			case specific == best:
				accepted = accepted || wanted
			}
		}
	}
	return accepted || !any
}

// weight is the q of a media range; one that does not read counts as 1.
func weight(params []string) float64 {
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			if q, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				return q
			}
		}
	}
	return 1
}
