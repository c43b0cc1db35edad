package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"starling/master/mesos"
)

// On disk, below Config.Dir:
//
//	bridge.json              which bridge and subnet this agent has (place)
//	containers/<id>/
//	  record.json            what it has (record); written before anything is made
//	  net                    the namespace is mounted here
//	  resolv.conf hosts hostname
//
// None of it is worth anything after the machine has been started anew, but for what CNI plugins remember on disk, as the
// addresses that they lease: that is given back, and all other records of another boot are removed.
const (
	fileBridge    = "bridge.json"
	fileRecord    = "record.json"
	fileNamespace = "net"
)

// place is the bridge of this agent.
type place struct {
	Bridge string       `json:"bridge"`
	Subnet netip.Prefix `json:"subnet"`
}

func (p place) valid() bool { return p.Bridge != "" && p.Subnet.IsValid() }

// record is what one container has. It is replaced, not modified, once it is in Networks.records, except by who holds its id.
type record struct {
	ID   string `json:"id"`
	Boot string `json:"boot"`
	// Ready is set when all of it is there, Leaving when it is being taken away.
	Ready   bool `json:"ready,omitempty"`
	Leaving bool `json:"leaving,omitempty"`
	// Own is a namespace of its own.
	Own      bool     `json:"own,omitempty"`
	Hostname string   `json:"hostname"`
	Control  bool     `json:"control,omitempty"`
	Devices  []device `json:"devices,omitempty"`
	Infos    [][]byte `json:"infos,omitempty"` // mesos.NetworkInfo
}

// onBridge tells whether a container has an address of the bridge, or may have one.
func (r *record) onBridge() bool {
	return r.Own && len(r.Infos) == 0 || slices.ContainsFunc(r.Devices, func(d device) bool { return d.CNI == nil })
}

// remembered leaves of a record of an earlier boot what plugins may remember, to be taken away; false where that is nothing.
func (r *record) remembered() bool {
	r.Devices = slices.DeleteFunc(r.Devices, func(d device) bool { return d.CNI == nil })
	for i := range r.Devices {
		r.Devices[i].Mappings = nil // the rules that made them went with that boot
	}
	r.Ready, r.Leaving, r.Own, r.Control = false, true, false, false
	return len(r.Devices) > 0
}

// device is one network that a container has joined.
type device struct {
	Network string `json:"network"`
	// Name is what the device is called in the container.
	Name     string       `json:"name"`
	Address  netip.Prefix `json:"address,omitzero"`
	Mappings []Mapping    `json:"mappings,omitempty"`
	// CNI is the configuration by which a plugin added it, Asked what it was told of the request, Result what it said.
	CNI    *cniList        `json:"cni,omitempty"`
	Asked  json.RawMessage `json:"asked,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// link is the node's end of the pair: the address in its name tells who owns it even where no record does.
func (d device) link() string { return linkOf(d.Address.Addr()) }

func linkOf(addr netip.Addr) string {
	b := addr.As4()
	return fmt.Sprintf("%s%02x%02x%02x%02x", linkPrefix, b[0], b[1], b[2], b[3])
}

const linkPrefix = "stv"

func (n *Networks) dir(id string) string { return filepath.Join(n.cfg.Dir, "containers", id) }

func (n *Networks) namespace(id string) string { return filepath.Join(n.dir(id), fileNamespace) }

// load reads the records. One that does not read is taken for something to be removed, unless its id is kept.
func (n *Networks) load() error {
	if data, err := os.ReadFile(filepath.Join(n.cfg.Dir, fileBridge)); err == nil {
		var p place
		if err := json.Unmarshal(data, &p); err != nil || !p.valid() {
			n.cfg.Log.Warn("the note about the bridge of containers did not read, another may be chosen", "err", err)
		} else {
			n.setPlace(p)
		}
	}
	entries, err := os.ReadDir(filepath.Join(n.cfg.Dir, "containers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read the networks of containers: %w", err)
	}
	for _, e := range entries {
		id := e.Name()
		r := &record{}
		data, err := os.ReadFile(filepath.Join(n.dir(id), fileRecord))
		if err == nil {
			err = json.Unmarshal(data, r)
		}
		switch {
		case err != nil:
			// The namespace may be that of a running container: it stays for as long as somebody keeps the id. Its address
			// is not given away while its device is there.
			n.cfg.Log.Warn("the record of a container's network did not read", "container_id", id, "err", err)
			r = &record{ID: id, Boot: n.boot, Own: true, Ready: kept(n.namespace(id)), Hostname: hostnameOf(id)}
		case r.ID == id && r.Boot != n.boot && r.remembered():
		case r.ID != id || r.Boot != n.boot:
			if err := os.RemoveAll(n.dir(id)); err != nil {
				n.cfg.Log.Warn("cannot remove the record of a network of an earlier boot", "container_id", id, "err", err)
			}
			continue
		}
		n.records[id] = r
		for _, d := range r.Devices {
			for _, m := range d.Mappings {
				n.ports[m.String()] = id
			}
		}
	}
	n.holdAddresses()
	return nil
}

// setPlace chooses the bridge. Called with mu held, or before anybody else can.
func (n *Networks) setPlace(p place) {
	n.place, n.pool = p, newAddresses(p.Subnet)
	n.holdAddresses()
}

func (n *Networks) holdAddresses() {
	if n.pool == nil {
		return
	}
	for _, r := range n.records {
		for _, d := range r.Devices {
			if d.CNI == nil && d.Address.IsValid() {
				n.pool.hold(d.Address.Addr())
			}
		}
	}
}

// save writes a record.
func (n *Networks) save(r *record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot note the network of %q: %w", r.ID, err)
	}
	if err := os.MkdirAll(n.dir(r.ID), 0o755); err != nil {
		return fmt.Errorf("cannot note the network of %q: %w", r.ID, err)
	}
	return replace(filepath.Join(n.dir(r.ID), fileRecord), data)
}

// replace writes a file whole or not at all. It need not be on the medium: after a power cut nothing of it counts.
func replace(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	return nil
}

// attachment is what the caller gets of a record.
func (n *Networks) attachment(r *record) Attachment {
	a := Attachment{Hostname: r.Hostname}
	if r.Own {
		a.Path = n.namespace(r.ID)
	}
	for _, data := range r.Infos {
		info := &mesos.NetworkInfo{}
		if proto.Unmarshal(data, info) == nil {
			a.Infos = append(a.Infos, info)
		}
	}
	for _, name := range []string{"resolv.conf", "hosts", "hostname"} {
		a.Files = append(a.Files, File{Source: filepath.Join(n.dir(r.ID), name), Target: "/etc/" + name})
	}
	return a
}

// nodeFiles are those of a container in the node's network.
func nodeFiles() []File {
	var out []File
	for _, name := range []string{"/etc/resolv.conf", "/etc/hosts", "/etc/hostname"} {
		if real, err := filepath.EvalSymlinks(name); err == nil {
			out = append(out, File{Source: real, Target: name})
		}
	}
	return out
}

// validID tells whether an id can be the name of a folder.
func validID(id string) bool {
	return id != "" && id != "." && id != ".." && len(id) <= 255 && !strings.ContainsAny(id, "/\x00")
}
