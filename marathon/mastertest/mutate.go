package mastertest

import (
	"encoding/json"
	"math/rand/v2"
)

// Mutate returns a JSON value, decoded with json.Number, in which a value somewhere is another one, or appears twice: what a
// fuzzer of bytes takes long to reach. It may change the value that it is given.
func Mutate(v any, rng *rand.Rand) any {
	switch v := v.(type) {
	case map[string]any:
		keys := sortedKeys(v)
		if len(keys) > 0 && rng.IntN(8) > 0 {
			key := keys[rng.IntN(len(keys))]
			v[key] = Mutate(v[key], rng)
			return v
		}
	case []any:
		if len(v) > 0 && rng.IntN(4) > 0 {
			i := rng.IntN(len(v))
			v[i] = Mutate(v[i], rng)
			return v
		}
		if len(v) > 0 && rng.IntN(2) > 0 {
			return append(v, v[0])
		}
	}
	values := []any{
		nil, true, false, "", "x", "/", "a/b", "\x00", "tcp,udp", "disabled", "MESOS", "DOCKER", "host", "*",
		json.Number("0"), json.Number("1"), json.Number("2"), json.Number("-1"), json.Number("0.5"), json.Number("1e3"), json.Number("65535"),
		json.Number("2147483647"), json.Number("99999999999"), json.Number("1e308"),
		[]any{},
		[]any{"a", "CLUSTER", ""},
		map[string]any{},
		map[string]any{"x": "y"},
	}
	return values[rng.IntN(len(values))]
}
