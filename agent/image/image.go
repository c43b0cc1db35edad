// Package image brings images to the node: from registries, from OCI layouts and from archives of `docker save`, into a store
// of unpacked layers that all containers and images share.
//
// Prepare resolves a name, brings what lacks, and pins the layers for a container until Release. What lies on disk:
//
//	<dir>/layers/<diff id>/fs          a layer unpacked, in the form of overlayfs; never written to again
//	<dir>/layers/<diff id>/layer.json  its size; its time is that of the last use
//	<dir>/images/<hash of name>.json   what a name meant last: digest, configuration, layers
//	<dir>/pins/<owner>/<container>.json  what a container uses; as long as it is there, its layers stay
//	<dir>/tmp/<process>/               layers on their way; locked by the process, emptied when it is gone
//	<dir>/trash/, <dir>/quarantine/    what is being removed; what was torn, kept for a look
//	<dir>/lock                         taken shared to pin, alone to remove: several agents may share a store
//
// A layer is unpacked in tmp, checked against its digest, synced and renamed, so a half one is never seen. Files carry a
// checksum; a torn one costs what it describes, which is brought again. A name that is known works without its registry,
// unless the image says not to use what is cached. Who may start a container here may use what others have brought: a
// private image is asked for with credentials only when it is not cached.
package image

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"starling/agent/image/overlay"
	"starling/master/mesos"
)

// Config says where images come from and where they go.
type Config struct {
	// Dir is the store. It is made, for root alone.
	Dir string
	// Owner tells apart the agents that share a store: the agent's work directory. When that is gone, so are its pins.
	Owner string
	// Registry is where names without a registry are looked for: a host, a URL, or a folder ("/path", "file:///path") with
	// archives (NAME.tar) and OCI layouts. Empty is Docker's.
	Registry string
	// DockerConfig is the content of a Docker configuration file with credentials, or empty.
	DockerConfig []byte
	// Insecure are registries (HOST[:PORT]) that may be spoken to without TLS, as those on loopback may.
	Insecure []string
	// LinkLocal allows registries at link-local addresses, where clouds keep the secrets of their machines.
	LinkLocal bool
	// Backend is "overlay" or "copy"; empty is an overlay where it can be had.
	Backend string
	// PullTimeout is how long bringing an image may take, StallTimeout how long a registry may send nothing; 10 minutes,
	// 1 minute.
	PullTimeout, StallTimeout time.Duration
	// MaxLayers and MaxBytes (unpacked) bound one image; 127, 64 GiB.
	MaxLayers int
	MaxBytes  int64
	// Reserve is how much of the disk is left free, in bytes; 256 MiB.
	Reserve int64
	// GCAge is how long what nobody uses is kept; a week. GCHeadroom is the share of the disk below which it goes at once;
	// 0.1. GCInterval is how often that is looked at; 5 minutes.
	GCAge      time.Duration
	GCHeadroom float64
	GCInterval time.Duration
	// Log may be nil.
	Log *slog.Logger
}

// DefaultConfig has the defaults that Config names.
func DefaultConfig() Config {
	return Config{
		PullTimeout: 10 * time.Minute, StallTimeout: time.Minute, MaxLayers: 127, MaxBytes: 64 << 30, Reserve: 256 << 20,
		GCAge: 7 * 24 * time.Hour, GCHeadroom: 0.1, GCInterval: 5 * time.Minute,
	}
}

// Validate returns all that is wrong with a configuration.
func (c Config) Validate() error {
	var errs []error
	if !filepath.IsAbs(c.Dir) {
		errs = append(errs, fmt.Errorf("the store of images is %q, which is not absolute", c.Dir))
	}
	switch c.Backend {
	case "", backendOverlay, backendCopy:
	default:
		errs = append(errs, fmt.Errorf("unknown image_provisioner_backend %q: there are overlay and copy", c.Backend))
	}
	if c.GCHeadroom < 0 || c.GCHeadroom >= 1 {
		errs = append(errs, fmt.Errorf("the headroom of the store of images is %v, which is no share below 1", c.GCHeadroom))
	}
	if c.PullTimeout <= 0 || c.StallTimeout <= 0 || c.MaxLayers <= 0 || c.MaxBytes <= 0 {
		errs = append(errs, errors.New("the timeouts and limits of images must be more than zero"))
	}
	if _, err := parseCredentials(c.DockerConfig); err != nil {
		errs = append(errs, fmt.Errorf("docker_config: %w", err))
	}
	if _, err := parseRegistry(c.Registry); err != nil {
		errs = append(errs, fmt.Errorf("docker_registry: %w", err))
	}
	return errors.Join(errs...)
}

const (
	backendOverlay = "overlay"
	backendCopy    = "copy"
)

// Image is what an image says of how to run it. Slices and maps are the caller's.
type Image struct {
	// Name is the whole name, Digest that of the manifest (of the configuration, for an archive).
	Name, Digest          string
	Entrypoint, Cmd, Env  []string
	WorkingDir, User      string
	StopSignal            string
	Ports                 []string // "80/tcp"
	Volumes               []string
	Labels                map[string]string
	Architecture, Variant string
}

// Prepared is an image that is ready to be run in.
type Prepared struct {
	Image
	// Layers are folders, absolute, read-only, the uppermost first, none of them twice. There may be none.
	Layers []string
	// Root, where it is set, is a folder with the whole image for the container alone, instead of layers.
	Root string
}

// Store is the images of a node. Its methods may be called from any goroutine.
type Store struct {
	config   Config
	registry registry
	login    credentials
	client   *client
	log      *slog.Logger
	platform v1.Platform
	tmp      *os.File // the process's folder in tmp, locked
	busy     keyed    // one at a time: a name that is resolved, a layer that is brought

	mu sync.Mutex
	// looked is when the last good look at a registry for a name began. Guarded by mu.
	looked map[string]time.Time
	// overlays is whether an overlay can be had, by the device of the folder. Guarded by mu.
	overlays map[uint64]bool
	// coming are the layers of pulls under way, which the collector leaves alone. Guarded by mu.
	coming map[string]int
	// seen are layers that were found whole. Guarded by mu.
	seen map[string]seenLayer
}

// New opens a store: makes its folders, empties what a process that is gone has left half done, sets aside what is torn.
// It uses no network. Close it.
func New(c Config) (*Store, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &Store{
		config: c, log: c.Log, platform: here(),
		looked: map[string]time.Time{}, overlays: map[uint64]bool{}, coming: map[string]int{},
		seen: map[string]seenLayer{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("component", "image")
	s.registry, _ = parseRegistry(c.Registry) // judged by Validate
	s.login, _ = parseCredentials(c.DockerConfig)
	if folder := s.registry.folder; folder != "" {
		if _, err := os.Stat(folder); err != nil {
			s.log.Warn("folder of images cannot be used as it is now", "err", err)
		}
	}
	s.client = newClient(c, s.registry)
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("cannot open store of images: %w", err)
	}
	return s, nil
}

// Close gives back what New took. Nothing may be under way.
func (s *Store) Close() error {
	s.client.close()
	return errors.Join(os.RemoveAll(s.tmp.Name()), s.tmp.Close())
}

// Prepare brings what lacks of an image and pins it for a container. dir is a folder of the container's own, where its
// upper layer will be: it is looked at to learn whether an overlay can be had, and a copy is made in it where not. Doing it
// again for a container gives the same again, without another look at the registry.
func (s *Store) Prepare(ctx context.Context, container string, image *mesos.Image, dir string) (Prepared, error) {
	if err := checkID(container); err != nil {
		return Prepared{}, err
	}
	if p, ok := s.pin(container); ok && !p.torn && s.whole(p.Record) {
		return s.prepared(ctx, container, p, dir)
	}
	asked, err := requestOf(image)
	if err != nil {
		return Prepared{}, err
	}
	var p pin
	_, err = s.have(ctx, asked, func(ctx context.Context, r record) error {
		p = pin{Container: container, Record: r}
		return s.writePin(ctx, p)
	})
	if err == nil {
		var out Prepared
		if out, err = s.prepared(ctx, container, p, dir); err == nil {
			return out, nil
		}
	}
	return Prepared{}, errors.Join(err, s.Release(context.WithoutCancel(ctx), container))
}

// Pull brings an image into the store and pins nothing.
func (s *Store) Pull(ctx context.Context, image *mesos.Image) (Image, error) {
	asked, err := requestOf(image)
	if err != nil {
		return Image{}, err
	}
	r, err := s.have(ctx, asked, func(context.Context, record) error { return nil })
	if err != nil {
		return Image{}, err
	}
	return r.image()
}

// prepared puts together what Prepare returns.
func (s *Store) prepared(ctx context.Context, container string, p pin, dir string) (Prepared, error) {
	image, err := p.Record.image()
	if err != nil {
		return Prepared{}, err
	}
	out := Prepared{Image: image, Layers: s.layers(p.Record)}
	if p.Root == "" && (len(out.Layers) == 0 || !s.overlay(dir)) {
		p.Root = filepath.Join(dir, "rootfs")
		if err := s.writePin(ctx, p); err != nil {
			return Prepared{}, err
		}
	}
	if p.Root != "" {
		if err := copyOnce(ctx, out.Layers, p.Root); err != nil {
			return Prepared{}, fmt.Errorf("cannot copy image %q: %w", image.Name, err)
		}
		out.Root, out.Layers = p.Root, nil
	}
	return out, nil
}

// copyOnce makes a root that is there whole or not at all.
func copyOnce(ctx context.Context, layers []string, root string) error {
	if _, err := os.Lstat(root); err == nil {
		return nil
	}
	half := root + ".half"
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	if err := overlay.Copy(ctx, layers, half); err != nil {
		return errors.Join(err, os.RemoveAll(half))
	}
	return os.Rename(half, root)
}

// overlay tells whether an overlay can be mounted on top of what is in dir.
func (s *Store) overlay(dir string) bool {
	if s.config.Backend != "" {
		return s.config.Backend == backendOverlay
	}
	dev, ok := device(dir)
	if !ok {
		return true // there is nothing to try it on; who mounts it will tell
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	can, known := s.overlays[dev]
	if !known {
		err := overlay.Check(dir)
		if can = err == nil; !can {
			s.log.Warn("images are copied, since no overlay can be mounted", "dir", dir, "err", err)
		}
		s.overlays[dev] = can
	}
	return can
}

// Release unpins the image of a container and removes its copy, if it has one. A container that holds nothing is no error.
func (s *Store) Release(_ context.Context, container string) error {
	if err := checkID(container); err != nil {
		return err
	}
	p, ok := s.pin(container)
	if !ok {
		return nil
	}
	if p.Root != "" {
		if err := errors.Join(os.RemoveAll(p.Root), os.RemoveAll(p.Root+".half")); err != nil {
			return fmt.Errorf("cannot remove copy of image: %w", err)
		}
	}
	if !p.torn {
		s.touch(p.Record)
	}
	return s.unpin(container)
}

// Held returns the containers of this owner that hold images, those of an earlier life too.
func (s *Store) Held(context.Context) ([]string, error) {
	pins, err := s.pins(s.owner())
	if err != nil {
		return nil, err
	}
	var held []string
	for _, p := range pins {
		held = append(held, p.Container)
	}
	return held, nil
}

func checkID(container string) error {
	if container == "" || len(container) > 200 || strings.HasPrefix(container, ".") || strings.ContainsAny(container, "/\x00") {
		return fmt.Errorf("cannot hold an image for container %q: that is no name of a file", container)
	}
	return nil
}
