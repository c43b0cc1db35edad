// Package cmd_test holds the rules of the repository itself: which package may import which, one doc comment a package,
// nothing beside the prescribed top level. The files are parsed here, not by a command, so that the test cache knows
// what was read.
package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "starling/"

// allowed says what of ours a package may import; the longest matching key decides. "x/..." is x and all below it. Never
// relax this to fix a build: the arrows point one way so that each component can be read, tested and replaced alone.
var allowed = map[string][]string{
	"gossip/record":     {},
	"gossip/catalog":    {"gossip/record"},
	"gossip":            {"gossip/..."},
	"gossip/api":        {"gossip/...", "master/mesos/..."},
	"agent/supervisor":  {},
	"agent":             {"agent/...", "gossip/record", "gossip/catalog", "master/mesos/...", "master/nodeapi"},
	"dns":               {"dns/...", "gossip/record", "gossip/catalog"},
	"dns/api":           {"dns/...", "gossip/record", "gossip/catalog", "master/mesos/server"},
	"marathon":          {"marathon/...", "master/mesos/...", "master/election/...", "master/store/..."},
	"master":            {"master/...", "gossip/record", "gossip/catalog"},
	"master/mesos":      {"master/mesos/..."},
	"master/nodeapi":    {"master/mesos/...", "gossip/record", "gossip/catalog"},
	"master/store":      {"master/store/...", "master/zookeeper/..."},
	"master/election":   {"master/election/...", "master/store/...", "master/zookeeper/...", "master/mesos/..."},
	"master/zookeeper":  {"master/zookeeper/..."},
	"master/allocator":  {"master/mesos/..."},
	"master/validation": {"master/mesos/..."},
	"cmd":               {"cmd/...", "agent/...", "master/...", "dns/...", "gossip/...", "marathon/..."},
	"deploy":            {"agent/...", "cmd/...", "deploy/...", "dns/...", "gossip/...", "marathon/...", "master/..."},
}

// joinedByCmd are imports that a component's root package leaves to cmd, which chooses implementations.
var joinedByCmd = map[string][]string{
	"agent": {
		"agent/api", "agent/containerizer/process", "agent/containerizer/libct", "agent/containerizer/docker",
		"agent/image", "agent/network", "agent/supervisor",
	},
	"master":   {"master/api", "master/web", "master/store/boltstore", "master/election/zkelection", "master/store/zkstore"},
	"marathon": {"marathon/api", "marathon/web", "master/store/boltstore", "master/store/zkstore"},
	"dns":      {"dns/api"},
	"gossip":   {"gossip/api"},
}

// onlyHere gives each package of others that may move under us one folder to live in, so that a break touches one place.
var onlyHere = map[string][]string{
	"github.com/hashicorp/memberlist":             {"gossip", "gossip/memnet"},
	"github.com/hashicorp/serf":                   {"gossip", "gossip/wan"},
	"github.com/hashicorp/mdns":                   {"gossip"},
	"github.com/go-zookeeper/zk":                  {"master/zookeeper"},
	"go.etcd.io/bbolt":                            {"master/store/boltstore"},
	"github.com/miekg/dns":                        {"gossip", "dns", "dns/records", "dns/forward"}, // gossip: the questions of mDNS
	"github.com/opencontainers/runc/libcontainer": {"agent/containerizer/libct"},
	"github.com/docker/docker":                    {"agent/containerizer/docker"},
	"github.com/google/go-containerregistry":      {"agent/image", "agent/image/imagetest"},
	"github.com/vishvananda/netlink":              {"agent/network"},
	"github.com/gofiber/fiber":                    {"agent/api", "gossip/api", "master/api", "dns/api", "marathon/api", "master/mesos/server"},
	"github.com/valyala/fasthttp":                 {"agent/api", "master/api", "dns/api", "marathon/api", "master/mesos/server"},
}

type file struct {
	dir, name string
	test      bool
	ast       *ast.File
}

// tree parses every Go file of the repository, without function bodies' details being looked at.
func tree(t *testing.T) []file {
	t.Helper()
	var files []file
	fset := token.NewFileSet()
	root := ".."
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || rel == "deploy/tools") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, file{filepath.ToSlash(filepath.Dir(rel)), d.Name(), strings.HasSuffix(rel, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d Go files found: the walk is wrong", len(files))
	}
	return files
}

func within(dir, pattern string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return dir == base || strings.HasPrefix(dir, base+"/")
	}
	return dir == pattern
}

func rule(dir string) ([]string, bool) {
	for d := dir; d != "."; d = path.Dir(d) {
		if r, ok := allowed[d]; ok {
			return r, true
		}
	}
	return nil, false
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, f := range tree(t) {
		for _, imp := range f.ast.Imports {
			p, _ := strconv.Unquote(imp.Path.Value)
			if ours, ok := strings.CutPrefix(p, module); ok {
				checkOurs(t, f, ours)
				continue
			}
			for prefix, homes := range onlyHere {
				if (p == prefix || strings.HasPrefix(p, prefix+"/")) && !slices.Contains(homes, f.dir) && !f.test {
					t.Errorf("%s/%s imports %s, which only %s may", f.dir, f.name, p, strings.Join(homes, ", "))
				}
			}
		}
	}
}

func checkOurs(t *testing.T, f file, ours string) {
	t.Helper()
	rules, ok := rule(f.dir)
	if !ok {
		t.Errorf("%s/%s: no rule for this folder", f.dir, f.name)
		return
	}
	if !f.test && slices.Contains(joinedByCmd[f.dir], ours) {
		t.Errorf("%s/%s imports %s: only cmd joins them", f.dir, f.name, ours)
	}
	if ours == f.dir || strings.HasPrefix(ours, f.dir+"/") || slices.ContainsFunc(rules, func(r string) bool { return within(ours, r) }) {
		return
	}
	// A package's tests may use what its users use, as long as the component stays the same.
	if f.test && strings.Split(ours, "/")[0] == strings.Split(f.dir, "/")[0] {
		return
	}
	t.Errorf("%s/%s may not import %s", f.dir, f.name, ours)
}

func TestEveryPackageHasOneDocComment(t *testing.T) {
	docs := map[string]int{}
	for _, f := range tree(t) {
		if f.test {
			continue
		}
		docs[f.dir] += 0
		if f.ast.Doc != nil {
			text := f.ast.Doc.Text()
			if strings.HasPrefix(text, "Package ") || strings.HasPrefix(text, "Command ") {
				docs[f.dir]++
			}
		}
	}
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("%s has %d package comments, want 1", dir, n)
		}
	}
}

func TestTopLevelHoldsOnlyWhatWasAgreed(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	agreed := []string{
		"agent", "master", "dns", "gossip", "marathon", "cmd", "deploy", "go.mod", "go.sum", "README.md", "LICENSE",
		"Makefile", "bin", // bin is built, and ignored by git
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(agreed, e.Name()) {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}
