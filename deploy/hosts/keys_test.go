package hosts

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestKeyIsRotatedByCommand(t *testing.T) {
	oldKey, nextKey, lastKey, strange := newKey(t), newKey(t), newKey(t), newKey(t)
	seed := fmt.Sprintf("127.0.0.1:%d", FreePort(t, "127.0.0.1"))
	// agent starts one on an address of its own, and returns where its API is, and its process.
	agent := func(i int, key string) (string, *Process) {
		ip := fmt.Sprintf("127.0.0.%d", i)
		mesh := strings.TrimPrefix(seed, "127.0.0.1:")
		args := []string{"--dns-port=0", "--no-discover", "--mesh-profile=local", "--cluster-key-file", key, "--resources=cpus:1;mem:64;disk:64"}
		if i > 1 {
			mesh = fmt.Sprint(FreePort(t, ip))
			args = append(args, "--join", seed)
		}
		api := fmt.Sprintf("%s:%d", ip, FreePort(t, ip))
		return api, Start(t, "http://"+api+"/health", fmt.Sprint("agent ", i), append([]string{
			"agent", "--ip", ip, "--work-dir", workDir(t), "--port=" + api[len(ip)+1:], "--mesh-port=" + mesh,
		}, args...)...)
	}
	first, _ := agent(1, oldKey)
	second, _ := agent(2, oldKey)
	third, process := agent(3, oldKey)
	for _, a := range []string{first, second, third} {
		meshMembers(t, a, 3)
	}

	// Who does not know the key begins nothing.
	if _, errs, code := command(t, "mesh", "rotate-key", "--agent", second, "--cluster-key-file", strange, "--new-key-file", nextKey); code != 1 || !strings.Contains(errs, "answers 403") {
		t.Errorf("rotation with a strange key: code %d, %s", code, errs)
	}
	out, errs, code := command(t, "mesh", "rotate-key", "--agent", second, "--cluster-key-file", oldKey, "--new-key-file", nextKey)
	if code != 0 || !strings.Contains(out, "remove: 3 of 3 nodes; done") {
		t.Fatalf("rotation: code %d, %s\n%s", code, errs, out)
	}
	out, _, _ = command(t, "mesh", "keys", "--agent", third, "-o", "json")
	var keys struct {
		Nodes []struct {
			Primary   string
			Installed []string
		}
	}
	if err := json.Unmarshal([]byte(out), &keys); err != nil || len(keys.Nodes) != 3 {
		t.Fatalf("keys: %v %s", err, out)
	}
	for _, n := range keys.Nodes {
		if n.Primary != keys.Nodes[0].Primary || len(n.Installed) != 1 {
			t.Errorf("keys of the nodes: %s", out)
			break
		}
	}
	for _, path := range []string{oldKey, nextKey} {
		if key, err := os.ReadFile(path); err != nil || strings.Contains(out, strings.TrimSpace(string(key))) {
			t.Errorf("a key is shown, or %v", err)
		}
	}
	// Again, with either file, it is done at once.
	if out, errs, code := command(t, "mesh", "rotate-key", "--agent", first, "--cluster-key-file", oldKey, "--new-key-file", nextKey); code != 0 || !strings.Contains(out, "done") {
		t.Errorf("a second time: code %d, %s\n%s", code, errs, out)
	}
	// Nobody was lost; a node with the old file that was there comes back, one with the new file joins.
	process.Terminate()
	process.run()
	process.Healthy("http://" + third + "/health")
	fourth, _ := agent(4, nextKey)
	for _, a := range []string{first, second, third, fourth} {
		meshMembers(t, a, 4)
	}

	// A node that cannot be reached holds it up, and is named.
	process.Kill()
	Eventually(t, 60*time.Second, "the killed agent is dead", func() error {
		out, _, _ := command(t, "mesh", "members", "--agent", first)
		if !strings.Contains(out, "  dead  ") {
			return fmt.Errorf("members:\n%s", out)
		}
		return nil
	})
	_, errs, code = command(t, "mesh", "rotate-key", "--agent", first, "--cluster-key-file", nextKey, "--new-key-file", lastKey)
	if code != 1 || !strings.Contains(errs, "cannot be reached") {
		t.Errorf("rotation without a node: code %d, %s", code, errs)
	}
	process.run()
	process.Healthy("http://" + third + "/health")
	meshMembers(t, fourth, 4)
	if out, errs, code := command(t, "mesh", "rotate-key", "--agent", fourth, "--cluster-key-file", nextKey, "--new-key-file", lastKey); code != 0 || !strings.Contains(out, "remove: 4 of 4 nodes; done") {
		t.Errorf("rotation that goes on: code %d, %s\n%s", code, errs, out)
	}
}
