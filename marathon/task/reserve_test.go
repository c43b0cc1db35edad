package task

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/marathon/app"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

var owner = Owner{Framework: "f1", Instance: "a.instance-5a0e8c51-0a01-11ef-8b3c-0242ac110002"}

// residentOf is an app with these volumes; what they say beside their path and size is given as JSON.
func residentOf(t *testing.T, volumes ...string) *app.App {
	t.Helper()
	list := make([]string, len(volumes))
	for n, v := range volumes {
		list[n] = fmt.Sprintf(`{"containerPath":"v%d","mode":"RW","persistent":{%s}}`, n, v)
	}
	return makeApp(t, `{"id":"/a","cmd":"x","role":"web","cpus":0.5,"mem":64,"disk":10,"portDefinitions":[{}],"container":{"type":"MESOS","volumes":[`+strings.Join(list, ",")+`]}}`)
}

func disk(size float64, role string, source *mesos.Resource_DiskInfo_Source) *mesos.Resource {
	r := &mesos.Resource{
		Name: proto.String("disk"), Type: mesos.Value_SCALAR.Enum(), Scalar: &mesos.Value_Scalar{Value: proto.Float64(size)}, Role: proto.String(role),
	}
	if source != nil {
		r.Disk = &mesos.Resource_DiskInfo{Source: source}
	}
	return r
}

func path(root string) *mesos.Resource_DiskInfo_Source {
	return &mesos.Resource_DiskInfo_Source{
		Type: mesos.Resource_DiskInfo_Source_PATH.Enum(), Path: &mesos.Resource_DiskInfo_Source_Path{Root: proto.String(root)},
	}
}

func mount(root string) *mesos.Resource_DiskInfo_Source {
	return &mesos.Resource_DiskInfo_Source{
		Type: mesos.Resource_DiskInfo_Source_MOUNT.Enum(), Mount: &mesos.Resource_DiskInfo_Source_Mount{Root: proto.String(root)},
	}
}

func profiled(profile string, source *mesos.Resource_DiskInfo_Source) *mesos.Resource_DiskInfo_Source {
	source.Profile = proto.String(profile)
	return source
}

// offerOf is an offer to role web of plain resources and disks.
func offerOf(t *testing.T, plain string, disks ...*mesos.Resource) Offer {
	t.Helper()
	more, err := resources.FromProto(disks)
	if err != nil {
		t.Fatal(err)
	}
	return Offer{Resources: parseResources(t, plain).Add(more).AllocatedTo("web")}
}

func newID() string { return "77aa0000-0a01-11ef-8b3c-0242ac110002" }

func TestReserveFindsDisks(t *testing.T) {
	const plain = "cpus:1;mem:128;disk:100;ports:[31000-31001]"
	tests := []struct {
		name    string
		volumes []string
		plain   string
		disks   []*mesos.Resource
		want    string // what the volumes are made of, or why not
	}{
		{"of the root disk", []string{`"size":90`}, plain, nil, "90 of /"},
		{"the root disk has to do for the task as well", []string{`"size":91`}, plain, nil, `needs 91 MiB of disk for the volume "v0", the offer has 90 MiB of type root`},
		{"two of one disk", []string{`"size":20`, `"size":70`}, plain, nil, "20 of /, 70 of /"},
		{"a path", []string{`"size":20,"type":"path"`}, plain, []*mesos.Resource{disk(50, "*", path("/p")), disk(30, "*", mount("/m"))}, "20 of /p"},
		{"the smallest path that will do", []string{`"size":20,"type":"path"`}, plain, []*mesos.Resource{disk(50, "*", path("/p")), disk(30, "*", path("/q")), disk(10, "*", path("/r"))}, "20 of /q"},
		{"no path", []string{`"size":20,"type":"path"`}, plain, []*mesos.Resource{disk(30, "*", mount("/m"))}, "the offer has none of type path"},
		{"a mount, whole", []string{`"size":20,"type":"mount"`}, plain, []*mesos.Resource{disk(50, "*", path("/p")), disk(30, "*", mount("/m"))}, "30 of /m"},
		{"a mount up to the maximum", []string{`"size":20,"maxSize":40,"type":"mount"`}, plain, []*mesos.Resource{disk(50, "*", mount("/m")), disk(35, "*", mount("/n"))}, "35 of /n"},
		{"no mount below the maximum", []string{`"size":20,"maxSize":40,"type":"mount"`}, plain, []*mesos.Resource{disk(50, "*", mount("/m"))}, "the offer has 50 MiB of type mount"},
		{"one mount is not two", []string{`"size":20,"type":"mount"`, `"size":20,"type":"mount"`}, plain, []*mesos.Resource{disk(50, "*", mount("/m"))}, "the offer has none of type mount"},
		{"the larger volume first", []string{`"size":20,"type":"mount"`, `"size":40,"type":"mount"`}, plain, []*mesos.Resource{disk(50, "*", mount("/m")), disk(30, "*", mount("/n"))}, "30 of /n, 50 of /m"},
		{"a path that a constraint allows", []string{`"size":20,"type":"path","constraints":[["path","LIKE","/fast/.*"]]`}, plain, []*mesos.Resource{disk(30, "*", path("/slow/1")), disk(50, "*", path("/fast/1"))}, "20 of /fast/1"},
		{"a path that a constraint does not allow", []string{`"size":20,"type":"path","constraints":[["path","UNLIKE","/fast/.*"]]`}, plain, []*mesos.Resource{disk(50, "*", path("/fast/1"))}, "none of type path that its constraints allow"},
		{"a constraint on all of the path", []string{`"size":20,"type":"path","constraints":[["path","LIKE","/fast"]]`}, plain, []*mesos.Resource{disk(50, "*", path("/fast/1"))}, "none of type path"},
		{"a profile", []string{`"size":20,"profileName":"ssd"`}, plain, []*mesos.Resource{disk(30, "*", mount("/m")), disk(50, "*", profiled("ssd", mount("/s")))}, "50 of /s"},
		{"no profile", []string{`"size":20,"profileName":"ssd"`}, plain, []*mesos.Resource{disk(30, "*", mount("/m"))}, "the offer has none of type mount and profile ssd"},
		{"a profile that was not asked for", []string{`"size":20,"type":"mount"`}, plain, []*mesos.Resource{disk(50, "*", profiled("ssd", mount("/s")))}, "the offer has none of type mount"},
		{"reserved resources can't be reserved", []string{`"size":20`}, "cpus(web):1;mem:128;disk:100;ports:[31000-31001]", nil, "needs 0.5 cpus, the offer has 0.0 for role *"},
		{"reserved disks can't be reserved", []string{`"size":20,"type":"path"`}, plain, []*mesos.Resource{disk(50, "web", path("/p"))}, "the offer has none of type path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := residentOf(t, tt.volumes...)
			o := offerOf(t, tt.plain, tt.disks...)
			claim, refusals := Reserve(o, Demand{App: a}, owner, newID, Settings{Principal: "p"}, newRand())
			if len(refusals) > 0 {
				if !strings.Contains(refusals[0].Why, tt.want) {
					t.Errorf("refused: %v, want %s", refusals, tt.want)
				}
				return
			}
			var made []string
			volumes := make(map[string]*mesos.Resource)
			for _, r := range claim.Operations[1].GetCreate().GetVolumes() {
				volumes[r.GetDisk().GetVolume().GetContainerPath()] = r
			}
			for _, v := range claim.Volumes {
				r := volumes[v.Path]
				root := "/"
				if source := r.GetDisk().GetSource(); source != nil {
					root = source.GetPath().GetRoot() + source.GetMount().GetRoot()
				}
				made = append(made, fmt.Sprintf("%v of %s", r.GetScalar().GetValue(), root))
				if id := "a#" + v.Path + "#" + newID(); v.ID != id || r.GetDisk().GetPersistence().GetId() != id || v.UUID() != newID() {
					t.Errorf("%s has the id %s, and is made with %s, want %s", v.Path, v.ID, r.GetDisk().GetPersistence().GetId(), id)
				}
				if r.GetDisk().GetPersistence().GetPrincipal() != "p" || r.GetReservation().GetPrincipal() != "p" || r.GetRole() != "web" {
					t.Errorf("%v is not the principal's in the role", r)
				}
			}
			if got := strings.Join(made, ", "); got != tt.want {
				t.Errorf("made %s, want %s", got, tt.want)
			}
			// What the operations do has to be possible, one after the other, and comes to what is taken.
			left := o.Resources
			for _, op := range claim.Operations {
				change, err := resources.Convert(op)
				if err != nil {
					t.Fatal(err)
				}
				if !left.Contains(change.Takes) {
					t.Fatalf("%s takes %s out of %s", op.GetType(), change.Takes, left)
				}
				left = left.Sub(change.Takes).Add(change.Gives)
			}
			if rest := left.Sub(left.Made()); !rest.Equal(o.Resources.Sub(claim.Takes)) {
				t.Errorf("left is %s, want %s", rest, o.Resources.Sub(claim.Takes))
			}
			// The next offer holds that, and the launch is on all of it.
			held := Reservations(left.ProtoPreRefinement(), "f1")
			if len(held) != 1 || held[0].Owner != owner || held[0].Role != "web" || len(held[0].Volumes) != len(tt.volumes) {
				t.Fatalf("in the next offer there is %+v", held)
			}
			pick, refusals := Return(Offer{Resources: left}, Demand{App: a}, held[0], claim.Volumes, Settings{}, newRand())
			if len(refusals) > 0 || !pick.All().Equal(held[0].Resources) || len(pick.Ports) != 1 || pick.Ports[0].Host == 0 {
				t.Errorf("returned to %s with ports %v, refused: %v; want all of %s", pick.All(), pick.Ports, refusals, held[0].Resources)
			}
			// And in the end everything is as it was.
			for _, op := range Release(held[0], Settings{}) {
				change, err := resources.Convert(op)
				if err != nil || !left.Contains(change.Takes) {
					t.Fatalf("%s: %v, takes %s out of %s", op.GetType(), err, change.Takes, left)
				}
				left = left.Sub(change.Takes).Add(change.Gives)
			}
			if !left.Equal(o.Resources) {
				t.Errorf("released, there is %s, and was %s", left, o.Resources)
			}
		})
	}
}

// An app without volumes does not touch what is reserved for instances, its own or others'; an instance touches its own alone.
func TestWhatIsReservedForOthers(t *testing.T) {
	a := residentOf(t, `"size":20`)
	o := offerOf(t, "cpus:1;mem:128;disk:100;ports:[31000-31001]")
	left := o.Resources
	claim, refusals := Reserve(o, Demand{App: a}, owner, newID, Settings{}, newRand())
	if len(refusals) > 0 {
		t.Fatal(refusals)
	}
	for _, op := range claim.Operations {
		change, err := resources.Convert(op)
		if err != nil {
			t.Fatal(err)
		}
		left = left.Sub(change.Takes).Add(change.Gives)
	}
	made := Offer{Resources: left.Made()}
	plain := makeApp(t, `{"id":"/b","cmd":"x","role":"web","cpus":0.1,"mem":1,"portDefinitions":[]}`)
	if pick, refusals := Match(made, Demand{App: plain}, Settings{}, newRand()); len(refusals) == 0 {
		t.Errorf("an app takes %s, which is reserved for an instance of another", pick.All())
	}
	if _, refusals := Reserve(made, Demand{App: a}, owner, newID, Settings{}, newRand()); len(refusals) == 0 {
		t.Error("what is reserved is reserved once more")
	}
	if held := Reservations(left.Proto(), "f2"); len(held) > 0 {
		t.Errorf("another framework sees %+v as its own", held)
	}
	held := Reservations(left.Proto(), "f1")
	other := []Volume{{Path: "v0", ID: "a#v0#another"}}
	_, refusals = Return(Offer{Resources: left}, Demand{App: a}, held[0], other, Settings{}, newRand())
	if len(refusals) != 1 || refusals[0].Reason != NoCorrespondingReservationFound || !strings.Contains(refusals[0].Why, `without its volume "v0"`) {
		t.Errorf("without its volume it is refused with %v", refusals)
	}
}
