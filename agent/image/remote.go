package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// resolved is an image that was found, before its layers are brought.
type resolved struct {
	record record
	blobs  []blob // the lowest layer first
	close  func()
}

// blob is a layer where it comes from.
type blob struct {
	diffID string
	size   int64 // as it comes; 0 if that is not known
	open   func() (io.ReadCloser, error)
}

// configMax is how long the configuration of an image may be.
const configMax = 8 << 20

// find looks for an image where its name leads. The context must outlive the use of what is found.
func (s *Store) find(ctx context.Context, src source, asked request) (resolved, error) {
	switch src.kind {
	case inRegistry:
		return s.findRemote(ctx, src, asked)
	default:
		return s.findLocal(src)
	}
}

// backoff paces the tries of one request; tries of a whole layer are in bring.
var backoff = remote.Backoff{Duration: 300 * time.Millisecond, Factor: 3, Jitter: 0.2, Steps: 3}

func (s *Store) findRemote(ctx context.Context, src source, asked request) (resolved, error) {
	host := src.remote.Context().RegistryStr()
	opts := []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(s.client), remote.WithRetryBackoff(backoff),
		remote.WithAuth(forRegistry(host, asked.login, s.login)), remote.WithUserAgent("starling"), remote.WithPlatform(s.platform),
	}
	desc, err := remote.Get(src.remote, opts...)
	if err != nil {
		return resolved{}, fmt.Errorf("registry %s: %w", host, said(err))
	}
	if desc.MediaType.IsIndex() {
		index, err := remote.Index(src.remote.Context().Digest(desc.Digest.String()), opts...)
		if err != nil {
			return resolved{}, fmt.Errorf("registry %s: %w", host, said(err))
		}
		m, err := index.IndexManifest()
		if err != nil {
			return resolved{}, err
		}
		d, err := descend(m, s.platform, func(d v1.Descriptor) (*v1.IndexManifest, error) {
			index, err := remote.Index(src.remote.Context().Digest(d.Digest.String()), opts...)
			if err != nil {
				return nil, said(err)
			}
			return index.IndexManifest()
		})
		if err != nil {
			return resolved{}, err
		}
		if desc, err = remote.Get(src.remote.Context().Digest(d.Digest.String()), opts...); err != nil {
			return resolved{}, fmt.Errorf("registry %s: %w", host, said(err))
		}
	}
	if !desc.MediaType.IsImage() {
		return resolved{}, fmt.Errorf("it is of type %q, which is no image", desc.MediaType)
	}
	image, err := desc.Image()
	if err != nil {
		return resolved{}, err
	}
	return s.ofRemote(src, host, desc, image)
}

func (s *Store) ofRemote(src source, host string, desc *remote.Descriptor, image v1.Image) (resolved, error) {
	m, err := image.Manifest()
	if err != nil {
		return resolved{}, err
	}
	if m.Config.Size > configMax {
		return resolved{}, fmt.Errorf("its configuration has %d bytes", m.Config.Size)
	}
	config, err := image.RawConfigFile()
	if err != nil {
		return resolved{}, fmt.Errorf("registry %s: cannot read configuration: %w", host, said(err))
	}
	if got := digestOf(config); got != m.Config.Digest.String() {
		return resolved{}, fmt.Errorf("registry %s: the configuration is %s and should be %s", host, got, m.Config.Digest)
	}
	r := resolved{record: record{Name: src.canonical, Digest: desc.Digest.String(), Config: config}, close: func() {}}
	return r, r.fill(m, s.platform, func(d v1.Descriptor) (io.ReadCloser, error) {
		layer, err := image.LayerByDigest(d.Digest)
		if err != nil {
			return nil, err
		}
		rc, err := layer.Compressed()
		if err != nil {
			return nil, fmt.Errorf("registry %s: %w", host, said(err))
		}
		return rc, nil
	})
}

// fill takes the layers of a manifest, and their digests from the configuration, which must tell as many.
func (r *resolved) fill(m *v1.Manifest, here v1.Platform, open func(v1.Descriptor) (io.ReadCloser, error)) error {
	ids, err := layersOf(r.record.Config, here)
	if err != nil {
		return err
	}
	if len(ids) != len(m.Layers) {
		return fmt.Errorf("its manifest has %d layers and its configuration %d", len(m.Layers), len(ids))
	}
	for i, d := range m.Layers {
		r.blobs = append(r.blobs, blob{diffID: ids[i], size: d.Size, open: func() (io.ReadCloser, error) { return open(d) }})
	}
	r.record.DiffIDs = ids
	return nil
}

// layersOf reads the digests of the layers from a configuration, and whether it runs here.
func layersOf(config []byte, here v1.Platform) ([]string, error) {
	var c v1.ConfigFile
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("cannot read its configuration: %w", err)
	}
	if err := runsHere(&c, here); err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(c.RootFS.DiffIDs))
	for _, h := range c.RootFS.DiffIDs {
		if _, err := checkDigest(h.String()); err != nil {
			return nil, err
		}
		ids = append(ids, h.String())
	}
	return ids, nil
}

// said makes an error of a registry readable: its own words, with what to do about the usual ones.
func said(err error) error {
	te, ok := errors.AsType[*transport.Error](err)
	if !ok {
		return err
	}
	switch te.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("access denied, or there is no such image: %w", err)
	case http.StatusNotFound:
		return fmt.Errorf("no such image: %w", err)
	case http.StatusTooManyRequests:
		return fmt.Errorf("too many requests: %w", err)
	}
	return err
}

// lasting tells whether an error will be the same next time.
func lasting(err error) bool {
	if te, ok := errors.AsType[*transport.Error](err); ok {
		return te.StatusCode >= 400 && te.StatusCode < 500 && te.StatusCode != http.StatusRequestTimeout && te.StatusCode != http.StatusTooManyRequests
	}
	return false
}
