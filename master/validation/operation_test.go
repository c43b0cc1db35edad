package validation

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
	"starling/master/mesos/resources"
)

const (
	reserved = `[{"name":"cpus","type":"SCALAR","scalar":{"value":2},"reservations":[{"type":"DYNAMIC","role":"web","principal":"p"}]}]`
	disk     = `[{"name":"disk","type":"SCALAR","scalar":{"value":10},"reservations":[{"type":"DYNAMIC","role":"web"}]}]`
	mounted  = `[{"name":"disk","type":"SCALAR","scalar":{"value":10},"reservations":[{"type":"DYNAMIC","role":"web"}],"disk":{"source":{"type":"MOUNT","mount":{"root":"/m"}}}}]`
)

// vol is a persistent volume of 10 MiB.
func vol(id, rest string) string {
	return `[{"name":"disk","type":"SCALAR","scalar":{"value":10},"reservations":[{"type":"DYNAMIC","role":"web"}],
	 "disk":{"persistence":{"id":"` + id + `","principal":"p"},"volume":{"mode":"RW","container_path":"d"}` + rest + `}}]`
}

func reserveOp(rs []*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum(), Reserve: &mesos.Offer_Operation_Reserve{Resources: rs}}
}

func unreserveOp(rs []*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum(), Unreserve: &mesos.Offer_Operation_Unreserve{Resources: rs}}
}

func createOp(rs []*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE.Enum(), Create: &mesos.Offer_Operation_Create{Volumes: rs}}
}

func destroyOp(rs []*mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY.Enum(), Destroy: &mesos.Offer_Operation_Destroy{Volumes: rs}}
}

// sized is vol with a size of its own.
func sized(id string, size int) string {
	return strings.Replace(vol(id, ""), `"value":10`, fmt.Sprintf(`"value":%d`, size), 1)
}

func growOp(volume, addition *mesos.Resource) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_GROW_VOLUME.Enum(), GrowVolume: &mesos.Offer_Operation_GrowVolume{
		Volume: volume, Addition: addition,
	}}
}

func shrinkOp(volume *mesos.Resource, by float64) *mesos.Offer_Operation {
	return &mesos.Offer_Operation{Type: mesos.Offer_Operation_SHRINK_VOLUME.Enum(), ShrinkVolume: &mesos.Offer_Operation_ShrinkVolume{
		Volume: volume, Subtract: &mesos.Value_Scalar{Value: proto.Float64(by)},
	}}
}

func TestOperation(t *testing.T) {
	web := func(text string) []*mesos.Resource { return allocated(t, text) }
	source := reserveOp(web(reserved))
	source.Reserve.Source = web("cpus:2")
	named := reserveOp(web(reserved))
	named.Id = &mesos.OperationID{Value: proto.String("a/b")}
	shared := web(vol("v", ""))
	shared[0].Shared = &mesos.Resource_SharedInfo{}
	for _, tt := range []struct {
		name string
		op   *mesos.Offer_Operation
		// as changes the context: the framework m-0000 in roles web and batch, with principal p, which was offered all below.
		as    func(*OperationContext)
		want  string
		takes string
		gives string
	}{
		{"a reservation", reserveOp(web(reserved)), nil, "", "cpus:2", reserved},
		{"a refinement", reserveOp(parseText(t, `[{"name":"cpus","type":"SCALAR","scalar":{"value":1},"reservations":[{"type":"STATIC","role":"web"},{"type":"DYNAMIC","role":"web/a","principal":"p"}]}]`).AllocatedTo("web/a").Proto()), func(c *OperationContext) {
			c.Framework.Roles = []string{"web/a"}
			c.Pool = parseText(t, "cpus(web):1").AllocatedTo("web/a")
		}, "", "", ""},
		{"a bad id", named, nil, "'a/b' contains invalid characters", "", ""},
		{"no body", &mesos.Offer_Operation{Type: mesos.Offer_Operation_RESERVE.Enum()}, nil, "Expecting 'reserve' to be present", "", ""},
		{"a reservation with a source", source, nil, "'source' field must not be set for scheduler API", "", ""},
		{"a reservation of bad resources", reserveOp([]*mesos.Resource{{Name: proto.String("x")}}), nil, "Invalid resources: ", "", ""},
		{"a reservation of what is not reserved", reserveOp(web("cpus:1")), nil, "is not dynamically reserved", "", ""},
		{"a static reservation", reserveOp(web("cpus(web):1")), nil, "is not dynamically reserved", "", ""},
		{"a reservation of a volume", reserveOp(web(vol("v", ""))), nil, "must already be reserved", "", ""},
		{"a reservation of no principal", reserveOp(web(disk)), nil, "A reserve operation was attempted by principal 'p', but there is a reserved resource in the request with no principal set", "", ""},
		{"a reservation of another principal", reserveOp(web(reserved)), func(c *OperationContext) { c.Principal = "q" }, "A reserve operation was attempted by authenticated principal 'q', which does not match a reserved resource in the request with principal 'p'", "", ""},
		{"a reservation of anybody by nobody", reserveOp(web(reserved)), func(c *OperationContext) { c.Principal = "" }, "", "cpus:2", reserved},
		{"a reservation of what nobody was offered", reserveOp(parseText(t, reserved).Proto()), nil, "A reserve operation was attempted on unallocated resource", "", ""},
		{"a reservation for another role", reserveOp(parseText(t, reserved).AllocatedTo("batch").Proto()), nil, "A reserve operation was attempted for a resource with role 'web', but the resource was allocated to role 'batch'", "", ""},
		{"a reservation for a role of others", reserveOp(web(reserved)), func(c *OperationContext) { c.Framework.Roles = []string{"batch"} }, "A reserve operation was attempted for a resource allocated to role 'web', but the framework only has roles '{ batch }'", "", ""},
		{"a reservation of more than there is", reserveOp(web(`[{"name":"cpus","type":"SCALAR","scalar":{"value":9},"reservations":[{"type":"DYNAMIC","role":"web","principal":"p"}]}]`)), nil, "Invalid RESERVE Operation: ", "", ""},
		{"an operator's reservation", reserveOp(parseText(t, reserved).Proto()), func(c *OperationContext) { c.Framework, c.Pool = nil, c.Pool.Unallocated() }, "", "", ""},
		{"an operator's reservation of what is offered", reserveOp(web(reserved)), func(c *OperationContext) { c.Framework = nil }, "the operator API only allows reservations to be made to unallocated resources", "", ""},

		{"an end of a reservation", unreserveOp(web(disk)), nil, "", disk, "disk:10"},
		{"an end without a body", &mesos.Offer_Operation{Type: mesos.Offer_Operation_UNRESERVE.Enum()}, nil, "Expecting 'unreserve' to be present", "", ""},
		{"an end of a static reservation", unreserveOp(web("cpus(web):1")), nil, "is not dynamically reserved", "", ""},
		{"an end of the reservation of a volume", unreserveOp(web(vol("old", ""))), nil, "cannot be unreserved directly. Please destroy the persistent volume first then unreserve the resource", "", ""},
		{"an end of what is not there", unreserveOp(web(reserved)), nil, "Invalid UNRESERVE Operation: ", "", ""},

		{"a volume", createOp(web(vol("v", ""))), nil, "", disk, vol("v", "")},
		{"a volume on a disk of its own", createOp(web(vol("v", `,"source":{"type":"MOUNT","mount":{"root":"/m"}}`))), nil, "", mounted, vol("v", `,"source":{"type":"MOUNT","mount":{"root":"/m"}}`)},
		{"a volume without a body", &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE.Enum()}, nil, "Expecting 'create' to be present", "", ""},
		{"a volume that is a disk", createOp(web(disk)), nil, "Not a persistent volume: Resource ", "", ""},
		{"a volume that is a disk of its own", createOp(web(mounted)), nil, "Not a persistent volume: 'persistence' is not set in DiskInfo", "", ""},
		{"a volume that can't be written to", createOp(func() []*mesos.Resource {
			v := web(vol("v", ""))
			v[0].Disk.Volume.Mode = mesos.Volume_RO.Enum()
			return v
		}()), nil, "Not a persistent volume: Read-only persistent volume not supported", "", ""},
		{"a volume of nobody", createOp(func() []*mesos.Resource {
			v := web(vol("v", ""))
			v[0].Reservations = nil
			return v
		}()), nil, "Invalid resources: ", "", ""},
		{"a volume with an id that is taken", createOp(web(vol("old", ""))), nil, "Persistence ID 'old' is not unique", "", ""},
		{"a shared volume", createOp(shared), nil, "with no SHARED_RESOURCES capability", "", ""},
		{"a shared volume of a framework that shares", createOp(shared), func(c *OperationContext) {
			c.Framework.Capabilities = append(c.Framework.Capabilities, capable(mesos.FrameworkInfo_Capability_SHARED_RESOURCES)...)
		}, "", "", ""},
		{"a volume of no principal", createOp(func() []*mesos.Resource {
			v := web(vol("v", ""))
			v[0].Disk.Persistence.Principal = nil
			return v
		}()), nil, "Create volume operation attempted by principal 'p', but there is a volume in the operation with no principal set in 'disk.persistence'", "", ""},
		{"a volume of another principal", createOp(web(vol("v", ""))), func(c *OperationContext) { c.Principal = "q" }, "Create volume operation attempted by authenticated principal 'q', which does not match a volume in the operation with principal 'p' set in 'disk.persistence'", "", ""},
		{"a volume of what nobody was offered", createOp(parseText(t, vol("v", "")).Proto()), nil, "Invalid volume resources: The resources are not allocated to a role", "", ""},

		{"an end of a volume", destroyOp(web(vol("old", ""))), nil, "", vol("old", ""), disk},
		{"an end of a volume without a body", &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY.Enum()}, nil, "Expecting 'destroy' to be present", "", ""},
		{"an end of a disk", destroyOp(web(disk)), nil, "Not a persistent volume: Resource ", "", ""},
		{"an end of an unknown volume", destroyOp(web(vol("v", ""))), nil, "Persistent volumes not found", "", ""},
		{"an end of a volume in use", destroyOp(web(vol("old", ""))), func(c *OperationContext) { c.Used = parseText(t, vol("old", "")).AllocatedTo("batch") }, "Persistent volumes in use", "", ""},
		{"an end of a volume that was not offered", destroyOp(web(vol("old", ""))), func(c *OperationContext) { c.Pool = parseText(t, "cpus:1").AllocatedTo("web") }, "Invalid DESTROY Operation: ", "", ""},

		{"a larger volume", growOp(web(vol("old", ""))[0], web(disk)[0]), nil, "", "", sized("old", 20)},
		{"a larger volume without a body", &mesos.Offer_Operation{Type: mesos.Offer_Operation_GROW_VOLUME.Enum()}, nil, "Expecting 'grow_volume' to be present", "", ""},
		{"a larger disk", growOp(web(disk)[0], web(disk)[0]), nil, "Not a persistent volume: Resource ", "", ""},
		{"a larger volume that is unknown", growOp(web(vol("v", ""))[0], web(disk)[0]), nil, "Persistent volumes not found", "", ""},
		{"a larger volume by CPUs", growOp(web(vol("old", ""))[0], web(reserved)[0]), nil, "cannot be added to the volume", "", ""},
		{"a larger volume by what nobody reserved", growOp(web(vol("old", ""))[0], web("disk:10")[0]), nil, "cannot be added to the volume", "", ""},
		{"a smaller volume", shrinkOp(web(vol("old", ""))[0], 4), nil, "", vol("old", ""), ""},
		{"a smaller volume without a body", &mesos.Offer_Operation{Type: mesos.Offer_Operation_SHRINK_VOLUME.Enum()}, nil, "Expecting 'shrink_volume' to be present", "", ""},
		{"a volume smaller by nothing", shrinkOp(web(vol("old", ""))[0], 0), nil, "0 cannot be taken off the volume", "", ""},
		{"a volume smaller by all", shrinkOp(web(vol("old", ""))[0], 10), nil, "10 cannot be taken off the volume", "", ""},
		{"a smaller volume in use", shrinkOp(web(vol("old", ""))[0], 4), func(c *OperationContext) { c.Used = parseText(t, vol("old", "")).AllocatedTo("batch") }, "Persistent volumes in use", "", ""},
		{"a disk made", &mesos.Offer_Operation{Type: mesos.Offer_Operation_CREATE_DISK.Enum()}, nil, "Operation CREATE_DISK needs a resource provider, and agents have none", "", ""},
		{"a disk taken apart", &mesos.Offer_Operation{Type: mesos.Offer_Operation_DESTROY_DISK.Enum()}, nil, "Operation DESTROY_DISK needs a resource provider, and agents have none", "", ""},
		{"nothing", &mesos.Offer_Operation{}, nil, "Operation UNKNOWN is not supported", "", ""},
		{"resources of two providers", unreserveOp(func() []*mesos.Resource {
			rs := append(web(disk), web(reserved)...)
			rs[1].ProviderId = &mesos.ResourceProviderID{Value: proto.String("rp")}
			return rs
		}()), nil, "Invalid resources: The resources have multiple resource providers", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			volumes := parseText(t, vol("old", ""))
			pool := parseText(t, "cpus:4;mem:1024;cpus(web):1").Add(parseText(t, disk)).Add(parseText(t, mounted)).Add(volumes)
			ctx := OperationContext{Framework: webFramework(), Principal: "p", Pool: pool.AllocatedTo("web"), Volumes: volumes}
			if tt.as != nil {
				tt.as(&ctx)
			}
			before := proto.CloneOf(tt.op)
			got, err := Operation(tt.op, ctx)
			expect(t, err, tt.want)
			if !proto.Equal(tt.op, before) {
				t.Error("the operation was changed")
			}
			if tt.takes != "" && !got.Takes.Equal(parseText(t, tt.takes).AllocatedTo("web")) {
				t.Errorf("want it to take %v, got %v", tt.takes, got.Takes)
			}
			if tt.gives != "" && !got.Gives.Equal(parseText(t, tt.gives).AllocatedTo("web")) {
				t.Errorf("want it to give %v, got %v", tt.gives, got.Gives)
			}
			if tt.want != "" && !(got.Takes.Empty() && got.Gives.Empty()) {
				t.Errorf("want no change with an error, got %+v", got)
			}
			if tt.want == "" && got.Takes.Scalar(resources.CPUs)+got.Takes.Scalar(resources.Disk) != got.Gives.Scalar(resources.CPUs)+got.Gives.Scalar(resources.Disk) {
				t.Errorf("something was lost or made: takes %v, gives %v", got.Takes, got.Gives)
			}
		})
	}
}
