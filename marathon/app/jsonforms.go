package app

import (
	"encoding/json"
	"fmt"
	"math"
)

// MarshalJSON writes {} for nil.
func (l Labels) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]string(l))
}

// MarshalJSON writes a text, or {"secret": name}.
func (v EnvValue) MarshalJSON() ([]byte, error) {
	if v.Secret != "" {
		return json.Marshal(map[string]string{"secret": v.Secret})
	}
	return json.Marshal(v.Value)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (v *EnvValue) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var ref struct {
			Secret string `json:"secret"`
		}
		if err := json.Unmarshal(data, &ref); err != nil {
			return err
		}
		*v = EnvValue{Secret: ref.Secret}
		return nil
	}
	*v = EnvValue{}
	return json.Unmarshal(data, &v.Value)
}

// MarshalJSON writes a number, or "unlimited".
func (l Limit) MarshalJSON() ([]byte, error) {
	if math.IsInf(float64(l), 1) {
		return []byte(`"unlimited"`), nil
	}
	return json.Marshal(float64(l))
}

// UnmarshalJSON reads what MarshalJSON writes.
func (l *Limit) UnmarshalJSON(data []byte) error {
	if string(data) == `"unlimited"` {
		*l = Unlimited
		return nil
	}
	return json.Unmarshal(data, (*float64)(l))
}

// MarshalJSON writes the list form.
func (c Constraint) MarshalJSON() ([]byte, error) {
	if c.HasValue {
		return json.Marshal([]string{c.Field, string(c.Operator), c.Value})
	}
	return json.Marshal([]string{c.Field, string(c.Operator)})
}

// UnmarshalJSON reads the list form.
func (c *Constraint) UnmarshalJSON(data []byte) error {
	var fields []string
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	if len(fields) < 2 || len(fields) > 3 {
		return fmt.Errorf("constraint %s has %d fields, want 2 or 3", data, len(fields))
	}
	*c = Constraint{Field: fields[0], Operator: Operator(fields[1])}
	if len(fields) == 3 {
		c.Value, c.HasValue = fields[2], true
	}
	return nil
}

// String returns the constraint as users write it, with colons.
func (c Constraint) String() string {
	if c.HasValue {
		return c.Field + ":" + string(c.Operator) + ":" + c.Value
	}
	return c.Field + ":" + string(c.Operator)
}

type unreachableJSON struct {
	InactiveAfterSeconds int `json:"inactiveAfterSeconds"`
	ExpungeAfterSeconds  int `json:"expungeAfterSeconds"`
}

// MarshalJSON writes an object, or "disabled".
func (u UnreachableStrategy) MarshalJSON() ([]byte, error) {
	if u.Disabled {
		return []byte(`"disabled"`), nil
	}
	return json.Marshal(unreachableJSON{u.InactiveAfterSeconds, u.ExpungeAfterSeconds})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (u *UnreachableStrategy) UnmarshalJSON(data []byte) error {
	if string(data) == `"disabled"` {
		*u = UnreachableStrategy{Disabled: true}
		return nil
	}
	var object unreachableJSON
	if err := json.Unmarshal(data, &object); err != nil {
		return err
	}
	*u = UnreachableStrategy{InactiveAfterSeconds: object.InactiveAfterSeconds, ExpungeAfterSeconds: object.ExpungeAfterSeconds}
	return nil
}
