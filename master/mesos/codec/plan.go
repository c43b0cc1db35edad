package codec

import (
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// plan is what a codec needs to know of one message type.
type plan struct {
	fields []*fieldPlan          // in the order of the definition
	byName map[string]*fieldPlan // by JSON name
	enums  []*fieldPlan          // those that are, or may contain, an enum
}

// fieldPlan is one field of a plan.
type fieldPlan struct {
	fd     protoreflect.FieldDescriptor
	index  int // in plan.fields
	name   string
	key    []byte // `"name":`
	unset  []byte // what is written when the field is unset; nil for nothing
	keys   protoreflect.FieldDescriptor
	value  valuePlan
	isList bool
	isMap  bool
	single bool // neither list nor map: presence decides
}

// valuePlan is one value: that of a field, of an element of a list, or of a map.
type valuePlan struct {
	fd   protoreflect.FieldDescriptor
	kind protoreflect.Kind
	enum *enumPlan
	plan func() *plan // for messages; resolved lazily because messages may contain themselves
}

// enumPlan maps the names of an enum, quoted and bare.
type enumPlan struct {
	quoted map[protoreflect.EnumNumber][]byte
	byName map[string]protoreflect.EnumNumber
}

func (e *enumPlan) known(n protoreflect.EnumNumber) bool { _, ok := e.quoted[n]; return ok }

// planCache compiles plans on first use and keeps them; there is one for each set of names.
type planCache struct {
	rename func(string) string // nil keeps names
	plans  sync.Map            // of protoreflect.MessageDescriptor to *plan
}

func (c *planCache) of(md protoreflect.MessageDescriptor) *plan {
	if p, ok := c.plans.Load(md); ok {
		return p.(*plan)
	}
	p, _ := c.plans.LoadOrStore(md, c.compile(md))
	return p.(*plan)
}

func (c *planCache) name(s protoreflect.Name) string {
	if c.rename == nil {
		return string(s)
	}
	return c.rename(string(s))
}

func (c *planCache) compile(md protoreflect.MessageDescriptor) *plan {
	fields := md.Fields()
	p := &plan{byName: make(map[string]*fieldPlan, fields.Len())}
	for i := range fields.Len() {
		fd := fields.Get(i)
		f := &fieldPlan{fd: fd, index: i, name: c.name(fd.Name()), isMap: fd.IsMap(), isList: fd.IsList()}
		f.single = !f.isMap && !f.isList
		f.key = append(appendString(nil, f.name), ':')
		if f.isMap {
			f.keys = fd.MapKey()
			f.value = c.value(fd.MapValue())
		} else {
			f.value = c.value(fd)
		}
		switch {
		case f.single:
			f.unset = unsetForm(fd, f.value)
		case f.isList && answers(md) && !deprecated(fd):
			f.unset = []byte("[]")
		}
		p.fields = append(p.fields, f)
		p.byName[f.name] = f
		if mayHoldEnum(f.value.fd, nil) {
			p.enums = append(p.enums, f)
		}
	}
	return p
}

func (c *planCache) value(fd protoreflect.FieldDescriptor) valuePlan {
	v := valuePlan{fd: fd, kind: fd.Kind()}
	if md := fd.Message(); md != nil {
		v.plan = sync.OnceValue(func() *plan { return c.of(md) })
	}
	if ed := fd.Enum(); ed != nil {
		values := ed.Values()
		v.enum = &enumPlan{
			quoted: make(map[protoreflect.EnumNumber][]byte, values.Len()),
			byName: make(map[string]protoreflect.EnumNumber, values.Len()),
		}
		for i := range values.Len() {
			ev := values.Get(i)
			name := c.name(ev.Name())
			v.enum.byName[name] = ev.Number()
			if !v.enum.known(ev.Number()) {
				v.enum.quoted[ev.Number()] = appendString(nil, name)
			}
		}
	}
	return v
}

// unsetForm is what an unset field is written as: its explicit default, unless the field is deprecated; the zero value
// where the definition knows no "unset" (google.protobuf.Duration); else nothing.
func unsetForm(fd protoreflect.FieldDescriptor, v valuePlan) []byte {
	if fd.Message() != nil || fd.ContainingOneof() != nil {
		return nil
	}
	if fd.HasPresence() && (!fd.HasDefault() || deprecated(fd)) {
		return nil
	}
	return appendValue(nil, &v, fd.Default())
}

func deprecated(fd protoreflect.FieldDescriptor) bool {
	opts, _ := fd.Options().(*descriptorpb.FieldOptions)
	return opts.GetDeprecated()
}

// answers tells whether a message is the answer to an operator's call: its lists are written even when they are empty.
func answers(md protoreflect.MessageDescriptor) bool {
	switch md.Parent().FullName() {
	case "mesos.v1.master.Response", "mesos.v1.agent.Response":
		return true
	}
	return false
}

// mayHoldEnum tells whether a value of the field is an enum, or a message with one somewhere inside.
func mayHoldEnum(fd protoreflect.FieldDescriptor, seen []protoreflect.MessageDescriptor) bool {
	if fd.Enum() != nil {
		return true
	}
	md := fd.Message()
	if md == nil {
		return false
	}
	if slices.Contains(seen, md) {
		return false
	}
	seen = append(seen, md)
	fields := md.Fields()
	for i := range fields.Len() {
		if mayHoldEnum(fields.Get(i), seen) {
			return true
		}
	}
	return false
}

// nameV0 gives the name of the unversioned API for one of v1. Enum values that say AGENT in both are left alone.
func nameV0(name string) string {
	switch {
	case strings.HasPrefix(name, "REASON_AGENT_"), strings.HasPrefix(name, "SOURCE_AGENT"):
		return strings.Replace(name, "AGENT", "SLAVE", 1)
	case name == "agent", strings.HasPrefix(name, "agent_"):
		return "slave" + name[len("agent"):]
	}
	return name
}
