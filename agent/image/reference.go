package image

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"starling/master/mesos"
)

// request is what was asked for.
type request struct {
	name  string
	login credentials // nil for none of its own
	fresh bool        // what is cached is not to be used without a look
}

// requestOf judges what a framework asks for.
func requestOf(i *mesos.Image) (request, error) {
	if i.GetType() != mesos.Image_DOCKER {
		return request{}, fmt.Errorf("images of type %s are not supported", i.GetType())
	}
	d := i.GetDocker()
	if d.GetName() == "" {
		return request{}, errors.New("the image has no name")
	}
	r := request{name: d.GetName(), fresh: i.Cached != nil && !i.GetCached()}
	switch s := d.GetConfig(); {
	case s == nil:
	case s.GetValue() == nil:
		return request{}, fmt.Errorf("image %q: its config is a reference to the secret %q, which nobody here resolves", r.name, s.GetReference().GetName())
	default:
		login, err := parseCredentials(s.GetValue().GetData())
		if err != nil {
			return request{}, fmt.Errorf("image %q: its config: %w", r.name, err)
		}
		r.login = login
	}
	if c := d.GetCredential(); c != nil && r.login == nil {
		r.login = credentials{anyRegistry: {Username: c.GetPrincipal(), Password: c.GetSecret()}}
	}
	return r, nil
}

// source is where a name leads.
type source struct {
	// canonical is the whole name, by which the store knows the image.
	canonical string
	// remote is set for an image of a registry.
	remote name.Reference
	// path is a file or folder of the node, tag what is meant of it; otherwise.
	path, tag string
	kind      kind
}

type kind int

const (
	inRegistry kind = iota
	inLayout
	inArchive
	inFolder // one of both, to be found by the name
)

// Prefixes of names that are paths of the node.
const (
	layoutPrefix  = "oci:"
	archivePrefix = "docker-archive:"
)

// registry is where names lead that do not say.
type registry struct {
	host     string // empty for Docker's
	insecure bool
	folder   string // instead of a host
}

// parseRegistry judges --docker_registry.
func parseRegistry(s string) (registry, error) {
	s = strings.TrimSuffix(s, "/")
	if path, ok := strings.CutPrefix(s, "file://"); ok || strings.HasPrefix(s, "/") {
		if !filepath.IsAbs(path) {
			return registry{}, fmt.Errorf("%q is no absolute path", s)
		}
		return registry{folder: filepath.Clean(path)}, nil
	}
	if s == "" {
		return registry{}, nil
	}
	r := registry{host: s}
	if strings.Contains(s, "://") {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" {
			return registry{}, fmt.Errorf("%q is neither a registry nor a folder", s)
		}
		r = registry{host: u.Host, insecure: u.Scheme == "http"}
	}
	if dockerHub(r.host) {
		return registry{}, nil
	}
	if _, err := name.NewRegistry(r.host); err != nil {
		return registry{}, fmt.Errorf("%q is no registry: %w", s, err)
	}
	return r, nil
}

func dockerHub(host string) bool {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io", "registry.docker.io", "registry.hub.docker.com":
		return true
	}
	return false
}

// resolve says where a name leads.
func (s *Store) resolve(image string) (source, error) {
	if rest, ok := strings.CutPrefix(image, layoutPrefix); ok {
		path, tag := cutTag(rest)
		return local(image, path, tag, inLayout)
	}
	if rest, ok := strings.CutPrefix(image, archivePrefix); ok {
		path, tag, _ := strings.Cut(rest, ".tar:")
		if tag != "" {
			path += ".tar"
		}
		return local(image, path, tag, inArchive)
	}
	if strings.Contains("/"+image+"/", "/../") {
		return source{}, fmt.Errorf("%q is no name of an image", image)
	}
	opts := []name.Option{name.WeakValidation}
	if s.registry.host != "" {
		opts = append(opts, name.WithDefaultRegistry(s.registry.host))
	}
	ref, err := name.ParseReference(image, opts...)
	if err != nil {
		return source{}, fmt.Errorf("%q is no name of an image: %w", image, err)
	}
	if s.registry.folder != "" && !namesRegistry(image) {
		return source{canonical: s.registry.folder + "/" + image, path: s.registry.folder, tag: image, kind: inFolder}, nil
	}
	if s.client.mayBePlain(ref.Context().RegistryStr()) {
		opts = append(opts, name.Insecure)
		if ref, err = name.ParseReference(image, opts...); err != nil {
			return source{}, err
		}
	}
	return source{canonical: ref.Name(), remote: ref}, nil
}

func local(image, path, tag string, k kind) (source, error) {
	if !filepath.IsAbs(path) {
		return source{}, fmt.Errorf("%q is no name of an image: its path must be absolute", image)
	}
	return source{canonical: image, path: filepath.Clean(path), tag: tag, kind: k}, nil
}

// cutTag splits "/path:tag"; a colon before the last slash belongs to the path.
func cutTag(s string) (path, tag string) {
	slash := strings.LastIndex(s, "/")
	if at := strings.Index(s[slash+1:], "@"); at >= 0 {
		return s[:slash+1+at], s[slash+2+at:]
	}
	if colon := strings.LastIndex(s[slash+1:], ":"); colon >= 0 {
		return s[:slash+1+colon], s[slash+2+colon:]
	}
	return s, ""
}

// namesRegistry tells whether a name begins with a registry, by Docker's rule.
func namesRegistry(image string) bool {
	first, _, ok := strings.Cut(image, "/")
	return ok && (strings.ContainsAny(first, ".:") || first == "localhost")
}

// credentials are logins by registry. They are never printed.
type credentials map[string]authn.AuthConfig

// anyRegistry is the key of a login that came without the name of its registry.
const anyRegistry = "*"

// String hides what credentials are.
func (c credentials) String() string { return fmt.Sprintf("[%d logins]", len(c)) }

// parseCredentials reads Docker's config.json, or the older form of ~/.dockercfg. Helpers that it names are programs, and
// are not run.
func parseCredentials(b []byte) (credentials, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var config struct {
		Auths map[string]json.RawMessage `json:"auths"`
	}
	err := json.Unmarshal(b, &config)
	if err == nil && config.Auths == nil {
		if err = json.Unmarshal(b, &config.Auths); err != nil {
			return nil, errors.New("it is no Docker configuration")
		}
		for k := range config.Auths { // other settings of a config.json without logins
			if !strings.ContainsAny(k, ".:") {
				delete(config.Auths, k)
			}
		}
	}
	if err != nil {
		return nil, errors.New("it is no Docker configuration: not JSON")
	}
	found := credentials{}
	for host, raw := range config.Auths {
		var a struct {
			Username, Password, Auth     string
			IdentityToken, RegistryToken string
		}
		if err := json.Unmarshal(raw, &a); err != nil {
			return nil, fmt.Errorf("its login for %q cannot be read", host)
		}
		login := authn.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
		if a.Auth != "" {
			b, err := base64.StdEncoding.DecodeString(a.Auth)
			if err != nil {
				b, err = base64.RawStdEncoding.DecodeString(a.Auth)
			}
			user, password, ok := strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
			if err != nil || !ok {
				return nil, fmt.Errorf("its login for %q is not base64 of user:password", host)
			}
			login.Username, login.Password = user, password
		}
		found[hostOf(host)] = login
	}
	return found, nil
}

// hostOf is the registry that a key of a Docker configuration means.
func hostOf(key string) string {
	if _, rest, ok := strings.Cut(key, "://"); ok {
		key = rest
	}
	host, _, _ := strings.Cut(key, "/")
	if dockerHub(host) {
		return name.DefaultRegistry
	}
	return host
}

// forRegistry returns the login for a registry: the request's own before the agent's.
func forRegistry(host string, all ...credentials) authn.Authenticator {
	for _, c := range all {
		for _, key := range []string{hostOf(host), anyRegistry} {
			if login, ok := c[key]; ok {
				return authn.FromConfig(login)
			}
		}
	}
	return authn.Anonymous
}
