package api

import (
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// plainQuality is what text/plain is worth beside JSON: it is for those alone who ask for it and say nothing of JSON.
const plainQuality = 0.1

// wantsPlain tells whether a list of tasks goes out in lines rather than as JSON, and whether the client takes either of
// the two.
func wantsPlain(accept string) (plain, either bool) {
	if strings.TrimSpace(accept) == "" {
		return false, true
	}
	inJSON, inPlain := quality(accept, fiber.MIMEApplicationJSON), plainQuality*quality(accept, fiber.MIMETextPlain)
	return inPlain > inJSON, inPlain > 0 || inJSON > 0
}

// quality is how much an Accept header likes a type, between 0 and 1: the part of it that names the type best decides (RFC
// 9110, 12.5.1). A part that cannot be read counts for nothing.
func quality(accept, mediaType string) float64 {
	kind, _, _ := strings.Cut(mediaType, "/")
	best, q := 0, 0.0
	for part := range strings.SplitSeq(accept, ",") {
		name, parameters, _ := strings.Cut(part, ";")
		rank := 0
		switch strings.ToLower(strings.TrimSpace(name)) {
		case mediaType:
			rank = 3
		case kind + "/*":
			rank = 2
		case "*/*", "*": // the second is what old clients of Java send
			rank = 1
		}
		if rank > best {
			best, q = rank, qualityOf(parameters)
		}
	}
	return q
}

func qualityOf(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return q
	}
	return 1
}
