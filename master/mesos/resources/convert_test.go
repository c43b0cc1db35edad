package resources_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

const (
	dynDisk = `name:"disk" type:SCALAR scalar{value:100} reservations{type:DYNAMIC role:"web"} `
	dynVol  = dynDisk + `disk{persistence{id:"v"} volume{mode:RW container_path:"d"}} `
	pathVol = dynDisk + `disk{persistence{id:"v"} volume{mode:RW container_path:"d"} source{type:PATH path{root:"/a"}}} `
	mntVol  = dynDisk + `disk{persistence{id:"v"} volume{mode:RW container_path:"d"} source{type:MOUNT mount{root:"/a"}}} `
)

// Each kind of operation takes and gives what it should; what was made of resources never changes their base.
func TestConvert(t *testing.T) {
	for name, tc := range map[string]struct{ op, takes, gives, err string }{
		"a reservation":            {`type:RESERVE reserve{resources{` + dynDisk + `}}`, "disk:100", "disk(reservations: [(DYNAMIC,web)]):100", ""},
		"a refinement":             {`type:RESERVE reserve{resources{` + strings.Replace(dynDisk, "scalar", `reservations{type:STATIC role:"a"} scalar`, 1) + `}}`, "", "", "is not below role"},
		"a changed one":            {`type:RESERVE reserve{source{` + dynDisk + `} resources{` + strings.Replace(dynDisk, "web", "db", 1) + `}}`, "disk(reservations: [(DYNAMIC,web)]):100", "disk(reservations: [(DYNAMIC,db)]):100", ""},
		"a changed one of more":    {`type:RESERVE reserve{source{` + dynDisk + `} resources{` + strings.Replace(dynDisk, "100", "101", 1) + `}}`, "", "", "differ in more"},
		"a static one":             {`type:RESERVE reserve{resources{name:"cpus" type:SCALAR scalar{value:1} role:"web"}}`, "", "", "is not dynamically reserved"},
		"an end":                   {`type:UNRESERVE unreserve{resources{` + dynDisk + `}}`, "disk(reservations: [(DYNAMIC,web)]):100", "disk:100", ""},
		"an end of a volume's":     {`type:UNRESERVE unreserve{resources{` + dynVol + `}}`, "", "", "keeps its reservation"},
		"a volume":                 {`type:CREATE create{volumes{` + dynVol + `}}`, "disk(reservations: [(DYNAMIC,web)]):100", "disk(reservations: [(DYNAMIC,web)])[v:d]:100", ""},
		"a shared volume":          {`type:CREATE create{volumes{` + dynVol + `shared{}}}`, "disk(reservations: [(DYNAMIC,web)]):100", "disk(reservations: [(DYNAMIC,web)])[v:d]<SHARED>:100", ""},
		"a volume on a disk":       {`type:CREATE create{volumes{` + pathVol + `}}`, "disk(reservations: [(DYNAMIC,web)])[PATH:/a]:100", "disk(reservations: [(DYNAMIC,web)])[PATH:/a,v:d]:100", ""},
		"a volume that is none":    {`type:CREATE create{volumes{` + dynDisk + `}}`, "", "", "is no persistent volume"},
		"an end of a volume":       {`type:DESTROY destroy{volumes{` + dynVol + `}}`, "disk(reservations: [(DYNAMIC,web)])[v:d]:100", "disk(reservations: [(DYNAMIC,web)]):100", ""},
		"a larger volume":          {`type:GROW_VOLUME grow_volume{volume{` + dynVol + `} addition{` + dynDisk + `}}`, "disk(reservations: [(DYNAMIC,web)]):100; disk(reservations: [(DYNAMIC,web)])[v:d]:100", "disk(reservations: [(DYNAMIC,web)])[v:d]:200", ""},
		"a larger volume by ports": {`type:GROW_VOLUME grow_volume{volume{` + dynVol + `} addition{name:"ports" type:RANGES ranges{range{begin:1 end:2}}}}`, "", "", "cannot be added"},
		"a larger MOUNT disk":      {`type:GROW_VOLUME grow_volume{volume{` + mntVol + `} addition{` + dynDisk + `}}`, "", "", "MOUNT disk, and keeps its size"},
		"a larger shared volume":   {`type:GROW_VOLUME grow_volume{volume{` + dynVol + `shared{}} addition{` + dynDisk + `}}`, "", "", "is shared"},
		"a smaller volume":         {`type:SHRINK_VOLUME shrink_volume{volume{` + dynVol + `} subtract{value:30}}`, "disk(reservations: [(DYNAMIC,web)])[v:d]:100", "disk(reservations: [(DYNAMIC,web)]):30; disk(reservations: [(DYNAMIC,web)])[v:d]:70", ""},
		"a negative volume":        {`type:SHRINK_VOLUME shrink_volume{volume{` + dynVol + `} subtract{value:-30}}`, "", "", "cannot be taken off"},
		"a launch":                 {`type:LAUNCH`, "", "", "changes no resources"},
		"nothing":                  {``, "", "", "changes no resources"},
	} {
		t.Run(name, func(t *testing.T) {
			op := new(mesos.Offer_Operation)
			if err := prototext.Unmarshal([]byte(tc.op), op); err != nil {
				t.Fatal(err)
			}
			before := proto.CloneOf(op)
			c, err := resources.Convert(op)
			if !proto.Equal(op, before) {
				t.Error("the operation was changed")
			}
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := sorted(c.Takes); got != sortedText(tc.takes) {
				t.Errorf("takes %s, want %s", got, tc.takes)
			}
			if got := sorted(c.Gives); got != sortedText(tc.gives) {
				t.Errorf("gives %s, want %s", got, tc.gives)
			}
			if !c.Takes.Base().Equal(c.Gives.Base()) {
				t.Errorf("%v was made of %v", c.Gives.Base(), c.Takes.Base())
			}
		})
	}
}

func sorted(r resources.Resources) string { return sortedText(r.String()) }

// sortedText puts the parts of a text into an order that means nothing.
func sortedText(text string) string {
	parts := strings.Split(text, "; ")
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

func TestViewsOfWhatOperationsMade(t *testing.T) {
	all := from(t, `name:"cpus" type:SCALAR scalar{value:4}`, `name:"cpus" type:SCALAR scalar{value:2} role:"db"`,
		`name:"cpus" type:SCALAR scalar{value:1} reservations{type:STATIC role:"db"} reservations{type:DYNAMIC role:"db/a"} reservations{type:DYNAMIC role:"db/a/b"}`,
		dynDisk, dynVol, pathVol, `name:"disk" type:SCALAR scalar{value:5} role:"db" disk{persistence{id:"w"} volume{mode:RW container_path:"d"}}`)
	base := from(t, `name:"cpus" type:SCALAR scalar{value:4}`, `name:"cpus" type:SCALAR scalar{value:3} role:"db"`,
		`name:"disk" type:SCALAR scalar{value:200}`, `name:"disk" type:SCALAR scalar{value:5} role:"db"`,
		`name:"disk" type:SCALAR scalar{value:100} disk{source{type:PATH path{root:"/a"}}}`)
	if got := all.Base(); !got.Equal(base) || !got.Base().Equal(base) {
		t.Errorf("base is %v, want %v", got, base)
	}
	if got := all.Made(); got.Scalar("cpus") != 1000 || got.Scalar("disk") != 305_000 {
		t.Errorf("made by operations: %v", got)
	}
	if got := all.Volumes(); got.Scalar("disk") != 205_000 || got.Scalar("cpus") != 0 {
		t.Errorf("volumes: %v", got)
	}
	if got := all.Common(from(t, dynDisk, `name:"cpus" type:SCALAR scalar{value:9}`, `name:"mem" type:SCALAR scalar{value:9}`)); got.Scalar("cpus") != 4000 || got.Scalar("disk") != 100_000 || got.Scalar("mem") != 0 {
		t.Errorf("common: %v", got)
	}
}
