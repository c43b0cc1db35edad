package inventory

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"starling/master/mesos"
)

// fake makes a machine of 8 processors, 16 GiB and 100 GiB of disk, with the files given below its roots.
func fake(t *testing.T, files map[string]string) Machine {
	t.Helper()
	root := t.TempDir()
	all := map[string]string{"proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n", "proc/self/cgroup": "0::/\n"}
	maps.Copy(all, files)
	for name, text := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Machine{
		Proc: filepath.Join(root, "proc"), Sys: filepath.Join(root, "sys"),
		CPUs:      func() int { return 8 },
		DiskBytes: func(string) (uint64, error) { return 100 << 30, nil },
	}
}

func TestDetect(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		files      map[string]string
		want       string
	}{
		{"all is found", "", nil, "cpus:8; disk:97280; mem:15360; ports:[31000-32000]"},
		{"what is said counts", "cpus:2.5;ports:[8000-8001]", nil, "cpus:2.5; disk:97280; mem:15360; ports:[8000-8001]"},
		{"nothing of something", "disk:0;cpus:1;mem:100;ports:[]", nil, "cpus:1; mem:100"},
		{"for a role", "mem(db):1000", nil, "cpus:8; disk:97280; mem(reservations: [(STATIC,db)]):1000; ports:[31000-32000]"},
		{"as JSON", `[{"name":"cpus","type":"SCALAR","scalar":{"value":3}}]`, nil, "cpus:3; disk:97280; mem:15360; ports:[31000-32000]"},
		{
			"cgroup v2", "", map[string]string{
				"proc/self/cgroup": "0::/system.slice/agent\n", "sys/fs/cgroup/system.slice/cpu.max": "150000 100000\n",
				"sys/fs/cgroup/system.slice/agent/cpu.max": "max 100000\n", "sys/fs/cgroup/system.slice/agent/memory.max": "1073741824\n",
			}, "cpus:1.5; disk:97280; mem:512; ports:[31000-32000]",
		},
		{
			"cgroup v1", "", map[string]string{
				"proc/self/cgroup":                           "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n",
				"sys/fs/cgroup/cpu/cpu.cfs_quota_us":         "400000\n",
				"sys/fs/cgroup/cpu/cpu.cfs_period_us":        "100000\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "4294967296\n",
			}, "cpus:4; disk:97280; mem:3072; ports:[31000-32000]",
		},
		{
			"no limit", "", map[string]string{
				"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
			}, "cpus:8; disk:97280; mem:15360; ports:[31000-32000]",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, problems, err := fake(t, tc.files).Detect(Config{Resources: tc.text, WorkDir: "/nowhere"})
			if err != nil || len(problems) > 0 {
				t.Fatalf("got %v, %v", err, problems)
			}
			if got.String() != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestWhatCannotBeMeasuredIsSaid(t *testing.T) {
	m := fake(t, map[string]string{"proc/meminfo": "nothing\n"})
	m.DiskBytes = func(string) (uint64, error) { return 0, errors.New("no such device") }
	got, problems, err := m.Detect(Config{WorkDir: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	if want := "cpus:8; disk:10240; mem:1024; ports:[31000-32000]"; got.String() != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(problems) != 2 || !strings.Contains(strings.Join(problems, " "), "no such device") {
		t.Errorf("problems: %q", problems)
	}
}

func TestBadResourcesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"cpus": "name:value", "cpus:x": `"x"`, "ports:[5": "']'", "cpus:1;mem:{a}": "mem", "cpus:-1": "negative",
		"ports:[9-5]": "behind its end", "cpus:1;mem:5;cpus:2": "cpus is there twice", "cpus(a):1\ncpus(a):1": "cpus is there twice",
		"ports:[1000-2000];ports(db):[1990-3000]": "ports 1990-2000 are there twice", "ports:[60000-70000]": "between 1 and 65535",
		"bugs:{a,b};bugs(x):{b}": `"b" of bugs is there twice`,
		`[{"name":"mem","type":"SCALAR","scalar":{"value":1}},{"name":"mem","type":"SCALAR","scalar":{"value":2}}]`: "mem is there twice",
		`[{"name":"cpus"`: "not a JSON array", `[{"name":"cpus","type":"SCALAR","scalar":{"value":-2}}]`: "negative",
	} {
		if _, _, err := fake(t, nil).Detect(Config{Resources: text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want it to say %s", text, err, want)
		}
	}
	for _, text := range []string{
		"cpus:1;cpus(db):1", "ports:[1-5,7-9];ports(db):[10-12]",
		`[{"name":"disk","type":"SCALAR","scalar":{"value":5},"disk":{"source":{"type":"MOUNT","mount":{"root":"/a"}}}},
		  {"name":"disk","type":"SCALAR","scalar":{"value":5},"disk":{"source":{"type":"MOUNT","mount":{"root":"/b"}}}}]`,
	} {
		if _, problems, err := fake(t, nil).Detect(Config{Resources: text, WorkDir: "/nowhere"}); err != nil || len(problems) > 0 {
			t.Errorf("%s: got %v, %q", text, err, problems)
		}
	}
}

func TestMoreThanThereIsIsSaid(t *testing.T) {
	got, problems, err := fake(t, nil).Detect(Config{Resources: "cpus:6;cpus(db):3;mem:20000;disk:200000;gpus:1", WorkDir: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Scalar("cpus") != 9000 {
		t.Errorf("it is not offered: %s", got)
	}
	all := strings.Join(problems, "\n")
	for _, want := range []string{"cpus:9, and this machine has 8", "mem:20000, and this machine has 16384 MB", "disk:200000", "no gpu/nvidia"} {
		if !strings.Contains(all, want) {
			t.Errorf("want %q in %q", want, problems)
		}
	}
	if len(problems) != 4 {
		t.Errorf("problems: %q", problems)
	}
}

func TestGPUs(t *testing.T) {
	m := fake(t, map[string]string{"dev/nvidia0": "", "dev/nvidia10": "", "dev/nvidia2": "", "dev/nvidiactl": "", "dev/nvidia-uvm": "", "dev/nvidia3": "no device"})
	m.Dev = filepath.Join(filepath.Dir(m.Proc), "dev")
	m.Device = func(path string) bool {
		data, err := os.ReadFile(path)
		return err == nil && len(data) == 0
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		want string // as resources; the error if it begins with "!"
	}{
		{"nobody asked", Config{}, ""},
		{"all", Config{GPUs: true}, "gpus:3"},
		{"some", Config{GPUs: true, GPUDevices: []int{10, 0}}, "gpus:2"},
		{"one that lacks", Config{GPUs: true, GPUDevices: []int{0, 7}}, "!nvidia7"},
		{"fewer by hand", Config{GPUs: true, Resources: "gpus:1"}, "gpus:1"},
	} {
		tc.cfg.WorkDir = "/nowhere"
		got, problems, err := m.Detect(tc.cfg)
		if text, bad := strings.CutPrefix(tc.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%s: got %v, %v", tc.name, got, err)
			}
			continue
		}
		if err != nil || len(problems) > 0 || !strings.Contains(got.String(), tc.want) || tc.want == "" && got.Scalar("gpus") > 0 {
			t.Errorf("%s: got %v, %v, %v", tc.name, got, problems, err)
		}
	}
	found, err := m.GPUs(Config{GPUs: true})
	if err != nil || len(found) != 3 || found[2].Number != 10 || filepath.Base(found[1].Path) != "nvidia2" {
		t.Errorf("got %v, %v", found, err)
	}
	if common := m.GPUCommon(); len(common) != 2 {
		t.Errorf("beside them: %q", common)
	}
	if _, problems, _ := m.Detect(Config{GPUs: true, Resources: "gpus:5", WorkDir: "/nowhere"}); len(problems) != 1 || !strings.Contains(problems[0], "gpus:5, and this machine has 3") {
		t.Errorf("problems: %q", problems)
	}
}

func TestThisMachine(t *testing.T) {
	got, problems, err := ThisMachine().Detect(Config{WorkDir: filepath.Join(t.TempDir(), "not", "yet")})
	if err != nil || len(problems) > 0 {
		t.Fatalf("%v, %v", err, problems)
	}
	for _, name := range []string{"cpus", "mem", "disk"} {
		if got.Scalar(name) <= 0 {
			t.Errorf("%s: got %v", name, got.Scalar(name))
		}
	}
	if name, err := Hostname(); name == "" || err != nil {
		t.Errorf("hostname: got %q, %v", name, err)
	}
}

func TestParseAttributes(t *testing.T) {
	got, err := ParseAttributes("rack: r1; level:10.5;\nports:[1-2,5-5];url:http://x:80/;debt:-3")
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		name string
		kind mesos.Value_Type
		text string
	}{
		{"rack", mesos.Value_TEXT, "r1"},
		{"level", mesos.Value_SCALAR, ""},
		{"ports", mesos.Value_RANGES, ""},
		{"url", mesos.Value_TEXT, "http://x:80/"},
		{"debt", mesos.Value_TEXT, "-3"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i, w := range want {
		if a := got[i]; a.GetName() != w.name || a.GetType() != w.kind || a.GetText().GetValue() != w.text {
			t.Errorf("got %v, want %v", a, w)
		}
	}
	if got[1].GetScalar().GetValue() != 10.5 || got[2].GetRanges().GetRange()[0].GetEnd() != 2 {
		t.Errorf("values: got %v", got)
	}
	_, err = ParseAttributes("rack;:x;ok:1;p:[1;gear:{a,b}")
	if err == nil || strings.Count(err.Error(), "\n") != 3 || !strings.Contains(err.Error(), `"gear": a set`) {
		t.Errorf("four faults: got %v", err)
	}
}
