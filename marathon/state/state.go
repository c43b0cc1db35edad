// Package state keeps what Marathon must not forget: the framework id, the definitions with their versions, instances,
// deployments and last failures, as small documents in a store.
//
//	marathon/framework              the framework id
//	marathon/tree                   the version of the present tree of definitions
//	marathon/trees/<version>        a tree: its groups, and which version of which app is in it
//	marathon/apps/<app>/<version>   one version of one app, or of one pod
//	marathon/instances/<id>         one instance
//	marathon/deployments/<id>       one deployment that runs, by the versions of the trees it leads from and to
//	marathon/failures/<app>         the newest failure of an app's tasks
//	marathon/discards/<id>/<agent>  what is reserved on an agent for an instance that is no more, until it is released
//	marathon/callbacks              the URLs that events are posted to
//	marathon/history/<id>           one deployment that has ended
//	marathon/restored               when the state was restored from a backup; only since then
//	marathon/settled                when the doubt after a restore was settled last
//
// <app> is the id with underscores for slashes, <version> the milliseconds since 1970 in 14 digits, so that versions sort.
// All documents are JSON; the field "format" of marathon/tree counts for them all.
//
// History of the format: 1 (2026-11) the first; marathon/discards, marathon/history and marathon/settled came to it later, and
// whoever does not know them is in doubt.
//
// What belongs together is written in one transaction, after the size of every document and of all together was checked, so
// nothing is ever there by half. A document that can't be read on opening costs the one thing that it describes: an app is put in
// quarantine, an instance or deployment is reported; Doubt is set then, and nothing may be killed for being unknown. Where
// what is left makes no sense as a whole, Open fails: better no Marathon than one that cleans up.
package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"starling/marathon/app"
	"starling/marathon/scheduler"
	"starling/master/store"
)

const (
	prefix    = "marathon/"
	framework = prefix + "framework"
	current   = prefix + "tree"
	trees     = prefix + "trees/"
	apps      = prefix + "apps/"
	instances = prefix + "instances/"
	plans     = prefix + "deployments/"
	failures  = prefix + "failures/"
	discards  = prefix + "discards/"
	callbacks = prefix + "callbacks"
	history   = prefix + "history/"

	format = 1
)

// DefaultVersions is how many versions of a tree, and of each app, are kept.
const DefaultVersions = 50

var (
	// ErrNoFramework tells that launched instances are stored but no framework id: a new id would make them strangers.
	ErrNoFramework = errors.New("launched instances are stored without a framework id")
	// ErrDamaged tells that the store holds something that can't be read and without which nothing makes sense.
	ErrDamaged = errors.New("stored state is damaged")
	// ErrFormat tells that the state was written by a release that this one does not understand.
	ErrFormat = errors.New("stored state has an unknown format")
	// ErrUnfit tells that a transaction can't be stored, however often it is tried.
	ErrUnfit = errors.New("cannot be stored")
	// ErrNoVersion tells that a version is not kept, or not any more.
	ErrNoVersion = errors.New("no such version")
)

// State is the door to the stored documents. Prepare and Commit are for one goroutine; the rest may be called from any.
type State struct {
	store store.Store
	keep  int

	mu       sync.Mutex
	versions map[app.PathID][]app.Timestamp // guarded by mu; stored versions of each app, oldest first
	trees    []app.Timestamp                // guarded by mu; stored trees, oldest first
	present  app.Timestamp                  // guarded by mu; of the tree that counts
	// inUse are the versions that instances were launched with, plans those that running deployments refer to; uses
	// counts both. Guarded by mu.
	inUse map[string]used
	plans map[string][]planChange
	uses  map[used]int
	// touched are the apps that the transaction under preparation gives a new version; guarded by mu.
	touched map[app.PathID]struct{}
}

type used struct {
	app     app.PathID
	version app.Timestamp
}

// Open reads everything. keep is how many versions are kept, 0 for the default.
func Open(ctx context.Context, st store.Store, keep int) (*State, *scheduler.Stored, error) {
	if keep <= 0 {
		keep = DefaultVersions
	}
	s := &State{
		store: st, keep: keep, versions: make(map[app.PathID][]app.Timestamp),
		inUse: make(map[string]used), plans: make(map[string][]planChange), uses: make(map[used]int),
	}
	documents, err := st.List(ctx, prefix)
	switch {
	case errors.Is(err, store.ErrDamaged):
		return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	case err != nil:
		return nil, nil, fmt.Errorf("cannot read the stored state: %w", err)
	}
	loaded, err := s.load(documents)
	if err != nil {
		return nil, nil, err
	}
	return s, loaded, nil
}

// currentDocument is at marathon/tree.
type currentDocument struct {
	Format  int           `json:"format"`
	Version app.Timestamp `json:"version"`
}

// treeDocument is a tree without its definitions.
type treeDocument struct {
	Version app.Timestamp                `json:"version"`
	Groups  []groupDocument              `json:"groups"`
	Apps    map[app.PathID]app.Timestamp `json:"apps"`
}

type groupDocument struct {
	ID           app.PathID    `json:"id"`
	Version      app.Timestamp `json:"version"`
	Dependencies []app.PathID  `json:"dependencies,omitempty"`
	EnforceRole  *bool         `json:"enforceRole,omitempty"`
}

type frameworkDocument struct {
	ID string `json:"id"`
	// Mark is the newest moment of an instance that was forgotten, zero before the first.
	Mark time.Time `json:"mark,omitzero"`
}

type callbacksDocument struct {
	URLs []string `json:"urls"`
}

func treeOf(root *app.Group) treeDocument {
	d := treeDocument{Version: root.Version, Apps: make(map[app.PathID]app.Timestamp)}
	for g := range root.AllGroups() {
		d.Groups = append(d.Groups, groupDocument{ID: g.ID, Version: g.Version, Dependencies: g.Dependencies, EnforceRole: g.EnforceRole})
		for id, a := range g.Apps {
			d.Apps[id] = a.Version
		}
		for id, a := range g.Pods {
			d.Apps[id] = a.Version
		}
	}
	return d
}

// tree puts a tree together. find returns a definition, or nil where there is none; those apps are returned as missing.
func (d treeDocument) tree(find func(app.PathID, app.Timestamp) *app.App) (root *app.Group, missing []app.PathID) {
	groups := make(map[app.PathID]*app.Group, len(d.Groups)+1)
	for _, g := range d.Groups {
		groups[g.ID] = &app.Group{ID: g.ID, Version: g.Version, Dependencies: g.Dependencies, EnforceRole: g.EnforceRole}
	}
	for _, id := range slices.Sorted(maps.Keys(d.Apps)) {
		a := find(id, d.Apps[id])
		parent := groups[id.Parent()]
		if a == nil || a.ID != id || parent == nil {
			missing = append(missing, id)
			continue
		}
		in := &parent.Apps
		if a.Pod != nil {
			in = &parent.Pods
		}
		if *in == nil {
			*in = make(map[app.PathID]*app.App)
		}
		(*in)[id] = a
	}
	for _, g := range d.Groups {
		if g.ID == app.Root {
			continue
		}
		if parent := groups[g.ID.Parent()]; parent != nil {
			if parent.Groups == nil {
				parent.Groups = make(map[app.PathID]*app.Group)
			}
			parent.Groups[g.ID] = groups[g.ID]
		}
	}
	root = groups[app.Root]
	if root == nil {
		root = app.EmptyRoot()
		root.Version = d.Version
	}
	return root, missing
}

func stamp(v app.Timestamp) string { return fmt.Sprintf("%014d", int64(v)) }

func parseStamp(s string) (app.Timestamp, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return app.Timestamp(n), err
}

func appKey(id app.PathID, v app.Timestamp) string { return apps + id.Safe() + "/" + stamp(v) }

// parseAppKey is the inverse of appKey for what follows the prefix.
func parseAppKey(rest string) (app.PathID, app.Timestamp, error) {
	safe, version, _ := strings.Cut(rest, "/")
	id, err := app.ParseSafe(safe)
	if err != nil {
		return "", 0, err
	}
	v, err := parseStamp(version)
	return id, v, err
}

// Versions returns the stored versions of an app, newest first.
func (s *State) Versions(id app.PathID) []app.Timestamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := slices.Clone(s.versions[id])
	slices.Reverse(versions)
	return versions
}

// Trees returns the versions of the stored trees, newest first.
func (s *State) Trees() []app.Timestamp {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := slices.Clone(s.trees)
	slices.Reverse(versions)
	return versions
}

// App returns one version of an app. It returns ErrNoVersion where that is not kept.
func (s *State) App(ctx context.Context, id app.PathID, v app.Timestamp) (*app.App, error) {
	document, err := s.store.Get(ctx, appKey(id, v))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w of %s: %s", ErrNoVersion, id, v)
	}
	if err != nil {
		return nil, err
	}
	a := new(app.App)
	if err := json.Unmarshal(document.Data, a); err != nil {
		return nil, fmt.Errorf("%w: app %s version %s: %w", ErrDamaged, id, v, err)
	}
	return a, nil
}

// Tree returns one version of the whole tree. It returns ErrNoVersion where that, or a definition in it, is not kept.
func (s *State) Tree(ctx context.Context, v app.Timestamp) (*app.Group, error) {
	document, err := s.store.Get(ctx, trees+stamp(v))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w of the groups: %s", ErrNoVersion, v)
	}
	if err != nil {
		return nil, err
	}
	var d treeDocument
	if err := json.Unmarshal(document.Data, &d); err != nil {
		return nil, fmt.Errorf("%w: tree %s: %w", ErrDamaged, v, err)
	}
	var failed error
	root, missing := d.tree(func(id app.PathID, version app.Timestamp) *app.App {
		a, err := s.App(ctx, id, version)
		if err != nil && !errors.Is(err, ErrNoVersion) {
			failed = err
		}
		return a
	})
	switch {
	case failed != nil:
		return nil, failed
	case len(missing) > 0:
		return nil, fmt.Errorf("%w of the groups: %s lacks the definition of %s", ErrNoVersion, v, missing[0])
	default:
		return root, nil
	}
}
