package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// fieldChange is a field in which two definitions differ; Old is nil where it is new, New where it is gone.
type fieldChange struct {
	// Path is that of Marathon's refusals: /env/FOO, /healthChecks(0)/path.
	Path string `json:"path"`
	Old  any    `json:"old"`
	New  any    `json:"new"`
}

// text says what changes.
func (f *fieldChange) text() string {
	return fmt.Sprintf("%s: %s -> %s", f.Path, valueText(f.Old), valueText(f.New))
}

func valueText(v any) string {
	if v == nil {
		return "(none)"
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return string(bytes.TrimSpace(b.Bytes()))
}

// decoded is a value as JSON has it, with numbers as they are written.
func decoded(v any) (any, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var out any
	err = dec.Decode(&out)
	return out, err
}

// difference lists where two JSON values differ, as deep as both have the same shape, in the order of paths. Lists of other
// lengths are compared as a whole.
func difference(path string, from, to any) []fieldChange {
	if a, ok := from.(map[string]any); ok {
		if b, ok := to.(map[string]any); ok {
			keys := maps.Clone(a)
			maps.Copy(keys, b)
			var out []fieldChange
			for _, key := range slices.Sorted(maps.Keys(keys)) {
				out = append(out, difference(path+"/"+key, a[key], b[key])...)
			}
			return out
		}
	}
	if a, ok := from.([]any); ok {
		if b, ok := to.([]any); ok && len(a) == len(b) {
			var out []fieldChange
			for i := range a {
				out = append(out, difference(fmt.Sprintf("%s(%d)", path, i), a[i], b[i])...)
			}
			return out
		}
	}
	if reflect.DeepEqual(from, to) {
		return nil
	}
	return []fieldChange{{Path: path, Old: from, New: to}}
}
