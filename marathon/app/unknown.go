package app

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// UnknownFields lists what an app's JSON has and no app here: fields that would be dropped without a word. Those that say nothing,
// null and empty ones, are left out. The error is that of the JSON.
func UnknownFields(body []byte) ([]string, error) { return unknownFields(body, appShape) }

// UnknownPodFields is UnknownFields for a pod.
func UnknownPodFields(body []byte) ([]string, error) { return unknownFields(body, podShape) }

func unknownFields(body []byte, s *shape) ([]string, error) {
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, fmt.Errorf("cannot read the definition: %w", err)
	}
	var out []string
	s.unknown(v, "", &out)
	slices.Sort(out)
	return out, nil
}

// unknown adds the paths below path that the shape does not know.
func (s *shape) unknown(v any, path string, out *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, value := range v {
			below := path + "/" + name
			switch field := s.fields[name]; {
			case field != nil:
				field.unknown(value, below, out)
			case s.fields == nil && s.elem != nil:
				s.elem.unknown(value, below, out)
			case s.fields != nil && !saysNothing(value):
				*out = append(*out, below)
			}
		}
	case []any:
		for i, value := range v {
			if s.elem != nil {
				s.elem.unknown(value, path+"/"+strconv.Itoa(i), out)
			}
		}
	}
}

// saysNothing tells of null, and of what is empty.
func saysNothing(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	default:
		return false
	}
}
