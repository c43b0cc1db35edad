package network

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"starling/agent/network/resolv"
	"starling/master/mesos/codec"
)

// cniList is a network as an operator configures it: one plugin after the other (CNI specification, 1.1). A file with a
// single plugin is read as a list of one.
type cniList struct {
	Version string            `json:"cniVersion"`
	Name    string            `json:"name"`
	Plugins []json.RawMessage `json:"plugins"`
}

// cniPlugin is what we look at of a plugin; the rest is its own.
type cniPlugin struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
}

// portMapper is the plugin that comes with Mesos: it takes the mappings from our arguments.
const portMapper = "mesos-cni-port-mapper"

// pluginType allows no path: the operator's folders alone say which programs are run.
var pluginType = regexp.MustCompile(`^[a-z0-9-]+$`)

// configMax bounds a configuration and what a plugin says, in bytes.
const configMax = 1 << 20

// findCNI reads the configuration of a network. They are read at each use, so that a new one needs no restart.
func findCNI(dir, name string) (*cniList, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the CNI networks: %w", err)
	}
	var names []string
	var faults []error
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); e.IsDir() || ext != ".conf" && ext != ".conflist" && ext != ".json" && ext != "" {
			continue
		}
		list, err := readCNI(filepath.Join(dir, e.Name()))
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if list.Name == name {
			return list, list.check()
		}
		names = append(names, list.Name)
	}
	slices.Sort(names)
	return nil, errors.Join(append([]error{fmt.Errorf("network %q is unknown: the CNI networks of this agent are %q", name, names)}, faults...)...)
}

func readCNI(path string) (*cniList, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read CNI network: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, configMax))
	if err != nil {
		return nil, fmt.Errorf("cannot read CNI network %q: %w", path, err)
	}
	list := &cniList{}
	if err := json.Unmarshal(data, list); err != nil {
		return nil, fmt.Errorf("cannot read CNI network %q: %w", path, err)
	}
	if list.Plugins == nil {
		list.Plugins = []json.RawMessage{data}
	}
	if list.Version == "" {
		list.Version = "0.1.0"
	}
	return list, nil
}

func (l *cniList) plugins() ([]cniPlugin, error) {
	out := make([]cniPlugin, len(l.Plugins))
	for i, data := range l.Plugins {
		if err := json.Unmarshal(data, &out[i]); err != nil {
			return nil, fmt.Errorf("CNI network %q: plugin %d: %w", l.Name, i+1, err)
		}
	}
	return out, nil
}

func (l *cniList) check() error {
	plugins, err := l.plugins()
	if err != nil {
		return err
	}
	for _, p := range plugins {
		if !pluginType.MatchString(p.Type) {
			return fmt.Errorf("CNI network %q: the type of a plugin is made of small letters, digits and dashes, which %q is not", l.Name, p.Type)
		}
	}
	if len(plugins) == 0 {
		return fmt.Errorf("CNI network %q has no plugin", l.Name)
	}
	return nil
}

// mapsPorts tells whether a plugin takes port mappings.
func (l *cniList) mapsPorts() bool {
	plugins, err := l.plugins()
	return err == nil && slices.ContainsFunc(plugins, func(p cniPlugin) bool { return p.Capabilities["portMappings"] || p.Type == portMapper })
}

// addCNI has the plugins of a network add a container, and notes what they said.
func (n *Networks) addCNI(ctx context.Context, r *record, d *device, j joining) (resolv.DNS, error) {
	list, err := findCNI(n.cfg.CNIConfigDir, d.Network)
	if err != nil {
		return resolv.DNS{}, err
	}
	asked, err := codec.JSON.Marshal(j.info)
	if err != nil {
		return resolv.DNS{}, fmt.Errorf("cannot tell the plugins of network %q what is asked for: %w", d.Network, err)
	}
	plugins, err := list.plugins()
	if err != nil {
		return resolv.DNS{}, err
	}
	for _, p := range plugins {
		if _, err := n.findPlugin(p.Type); err != nil {
			return resolv.DNS{}, fmt.Errorf("network %q: %w", d.Network, err)
		}
	}
	// Noted first: where it fails half way, the plugins are told to take away what there is.
	n.mu.Lock()
	d.CNI, d.Asked = list, asked
	n.mu.Unlock()
	if err := n.save(r); err != nil {
		return resolv.DNS{}, err
	}
	var result json.RawMessage
	for i := range list.Plugins {
		if result, err = n.plugin(ctx, "ADD", r, *d, i, result); err != nil {
			return resolv.DNS{}, err
		}
	}
	address, dns, err := readResult(result)
	if err != nil {
		return resolv.DNS{}, fmt.Errorf("network %q: %w", d.Network, err)
	}
	n.mu.Lock()
	d.Result, d.Address = result, address
	n.mu.Unlock()
	return dns, n.save(r)
}

// delCNI has the plugins take a container away, the last one first.
func (n *Networks) delCNI(ctx context.Context, r *record, d device) error {
	for i := len(d.CNI.Plugins) - 1; i >= 0; i-- {
		if _, err := n.plugin(ctx, "DEL", r, d, i, d.Result); err != nil {
			return err
		}
	}
	return nil
}

// plugin runs one plugin of a network, and returns what it says.
func (n *Networks) plugin(ctx context.Context, command string, r *record, d device, i int, previous json.RawMessage) (json.RawMessage, error) {
	plugins, err := d.CNI.plugins()
	if err != nil {
		return nil, err
	}
	p := plugins[i]
	path, err := n.findPlugin(p.Type)
	if err != nil {
		return nil, fmt.Errorf("network %q: %w", d.Network, err)
	}
	config := map[string]json.RawMessage{}
	if err := json.Unmarshal(d.CNI.Plugins[i], &config); err != nil {
		return nil, fmt.Errorf("network %q: plugin %s: %w", d.Network, p.Type, err)
	}
	set := func(key string, value any) {
		data, err := json.Marshal(value)
		if err == nil { // texts, numbers and what was JSON before
			config[key] = data
		}
	}
	set("cniVersion", d.CNI.Version)
	set("name", d.CNI.Name)
	if previous != nil {
		set("prevResult", previous)
	}
	if p.Capabilities["portMappings"] && len(d.Mappings) > 0 {
		var list []map[string]any
		for _, m := range d.Mappings {
			list = append(list, map[string]any{"hostPort": m.Host, "containerPort": m.Container, "protocol": m.Protocol})
		}
		set("runtimeConfig", map[string]any{"portMappings": list})
	}
	set("args", map[string]any{"org.apache.mesos": map[string]any{"network_info": d.Asked}})
	input, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("network %q: plugin %s: %w", d.Network, p.Type, err)
	}
	ns := n.namespace(r.ID)
	if r.Boot != n.boot {
		ns = "" // it went with the boot, which plugins have to bear
	}
	env := []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + cniID(r.ID), "CNI_NETNS=" + ns, "CNI_IFNAME=" + d.Name,
		"CNI_PATH=" + n.cfg.CNIPluginsDir, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	out, err := runPlugin(ctx, path, env, input)
	if err != nil {
		return nil, fmt.Errorf("network %q: plugin %s cannot %s: %w", d.Network, p.Type, strings.ToLower(command), err)
	}
	return out, nil
}

// findPlugin looks a plugin up in the operator's folders.
func (n *Networks) findPlugin(name string) (string, error) {
	if !pluginType.MatchString(name) {
		return "", fmt.Errorf("%q is no type of a plugin", name)
	}
	for _, dir := range filepath.SplitList(n.cfg.CNIPluginsDir) {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("plugin %s is not in %q", name, n.cfg.CNIPluginsDir)
}

// cniID is an id in the form that plugins take.
func cniID(id string) string {
	if networkName.MatchString(id) {
		return id
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(id)))
}

// limited keeps the first bytes, and counts as written what is beyond.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := configMax - l.Len(); room > 0 {
		l.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func runPlugin(ctx context.Context, path string, env []string, input []byte) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pluginTime, fmt.Errorf("it took longer than %v", pluginTime))
	defer cancel()
	var out, said limited
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, "/", bytes.NewReader(input), &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// What a plugin has started, as an address manager, goes with it.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case err == nil:
		return out.Bytes(), nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	var told struct {
		Msg, Details string
		Code         int
	}
	if json.Unmarshal(out.Bytes(), &told) == nil && told.Msg != "" {
		return nil, fmt.Errorf("%s (code %d) %s", told.Msg, told.Code, told.Details)
	}
	return nil, fmt.Errorf("%w: %.500s", err, strings.TrimSpace(said.String()))
}

// readResult finds the address in what the last plugin said, in the forms of old and new versions.
func readResult(data json.RawMessage) (netip.Prefix, resolv.DNS, error) {
	var said struct {
		IPs []struct{ Address string }
		IP4 struct{ IP string }
		DNS resolv.DNS
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return netip.Prefix{}, resolv.DNS{}, nil // a plugin without addresses
	}
	if err := json.Unmarshal(data, &said); err != nil {
		return netip.Prefix{}, resolv.DNS{}, fmt.Errorf("the result of the plugins did not read: %w", err)
	}
	texts := []string{said.IP4.IP}
	for _, ip := range said.IPs {
		texts = append(texts, ip.Address)
	}
	var found netip.Prefix
	for _, text := range texts {
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return netip.Prefix{}, resolv.DNS{}, fmt.Errorf("the result of the plugins did not read: %w", err)
		}
		// That of IPv4 is the one that everybody can use.
		if !found.IsValid() || found.Addr().Is6() && p.Addr().Is4() {
			found = p
		}
	}
	return found, said.DNS, nil
}
