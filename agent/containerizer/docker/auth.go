package docker

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Auth is what registries ask for, by registry.
type Auth map[string]Login

// hub is how configurations name the registry of images without one.
const hub = "docker.io"

// ParseAuth reads Docker's configuration, of today ({"auths": {...}}) and of old ({"registry": {...}}). Programs that keep
// credentials are not run: an entry that has none of its own is passed over, and a configuration with nothing but such
// programs is an error.
func ParseAuth(data []byte) (Auth, error) {
	type entry struct {
		Auth, Username, Password, IdentityToken, RegistryToken string
	}
	var top map[string]json.RawMessage
	if err := json.Unmarshal(data, &top); err != nil {
		return nil, fmt.Errorf("configuration of Docker is not JSON: %w", err)
	}
	entries := map[string]entry{}
	if auths, ok := top["auths"]; ok {
		if err := json.Unmarshal(auths, &entries); err != nil {
			return nil, fmt.Errorf("configuration of Docker: auths: %w", err)
		}
	} else {
		for name, raw := range top {
			var e entry
			if json.Unmarshal(raw, &e) == nil {
				entries[name] = e
			}
		}
	}
	auth := Auth{}
	for name, e := range entries {
		if e.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(e.Auth)
			if err != nil {
				return nil, fmt.Errorf("configuration of Docker: registry %q: auth is not base64", name)
			}
			user, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
			if !ok {
				return nil, fmt.Errorf("configuration of Docker: registry %q: auth is not of the form user:password", name)
			}
			e.Username, e.Password = user, password
		}
		l := Login{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken, Server: name}
		if l.Username == "" && l.IdentityToken == "" && l.RegistryToken == "" {
			continue
		}
		auth[registryName(name)] = l
	}
	if len(auth) == 0 && (top["credsStore"] != nil || top["credHelpers"] != nil) {
		return nil, errors.New("configuration of Docker: credentials are kept by a program (credsStore, credHelpers), which is not supported; write them under auths")
	}
	return auth, nil
}

// registryName is a registry without scheme and path.
func registryName(name string) string {
	_, rest, ok := strings.Cut(name, "://")
	if !ok {
		rest = name
	}
	host, _, _ := strings.Cut(rest, "/")
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		return hub
	}
	return host
}

// For returns what the registry of an image asks for.
func (a Auth) For(image string) Login { return a[registryOf(image)] }

// registryOf finds the registry in the name of an image: what is before the first slash, if it looks like a host.
func registryOf(image string) string {
	first, _, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return hub
	}
	return registryName(first)
}

// withTag adds the tag that is meant where none is given: without one, the engine would pull all of them.
func withTag(image string) string {
	if strings.Contains(image, "@") {
		return image
	}
	if last := image[strings.LastIndexByte(image, '/')+1:]; strings.Contains(last, ":") {
		return image
	}
	return image + ":latest"
}
