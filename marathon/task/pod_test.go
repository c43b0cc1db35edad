package task

import (
	"math/rand/v2"
	"testing"

	"starling/marathon/app"
	"starling/master/mesos"
	"starling/master/mesos/resources"
)

func TestGroupOnABridge(t *testing.T) {
	draft, err := app.ParsePod([]byte(`{"id":"/a/p","labels":{"l":"pod"},"environment":{"X":"pod","Y":"pod"},"networks":[{"mode":"container/bridge"}],"volumes":[{"name":"v"}],
		"containers":[{"name":"one","resources":{"cpus":0.1,"mem":32},"exec":{"command":{"shell":"x"}},"environment":{"X":"one"},"volumeMounts":[{"name":"v","mountPath":"d"}]},
		{"name":"two","resources":{"cpus":0.2,"mem":64},"image":{"kind":"DOCKER","id":"i"},"exec":{"command":{"argv":["a","b"]}},
		 "endpoints":[{"name":"w-b","containerPort":80,"hostPort":0}],"healthCheck":{"http":{"endpoint":"w-b"}},"lifecycle":{"killGracePeriodSeconds":0.5}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	pod, err := draft.Create("/a/p", nil, app.EmptyRoot().RulesFor("/a/p", app.DefaultSettings()))
	if err != nil {
		t.Fatal(err)
	}
	offered, err := resources.Parse("cpus:4;mem:4096;disk:100;ports:[31000-31000]", "*")
	if err != nil {
		t.Fatal(err)
	}
	settings := Settings{MesosBridgeName: "bridge", Refined: true}
	pick, refusals := Match(Offer{Resources: offered}, Demand{App: pod}, settings, rand.New(rand.NewPCG(1, 1)))
	if len(refusals) > 0 {
		t.Fatal(refusals)
	}
	id := app.InstanceID{App: "/a/p"}.PodTask("one", 1)
	executor, tasks := BuildGroup(Launch{App: pod, Task: id, AgentID: "a", Hostname: "h", Pick: pick}, settings)
	total := func(rs []*mesos.Resource) resources.Resources {
		sum, err := resources.FromProto(rs)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	own, one, two := total(executor.GetResources()), total(tasks[0].GetResources()), total(tasks[1].GetResources())
	if !own.Add(one).Add(two).Equal(pick.All()) {
		t.Errorf("the parts are %s, %s and %s, and picked was %s", own, one, two, pick.All())
	}
	if len(own.Ports()) != 1 || own.Scalar(resources.Disk).Float() != 10 || two.Scalar(resources.CPUs).Float() != 0.2 {
		t.Errorf("executor has %s, two has %s", own, two)
	}
	mapped := executor.GetContainer().GetNetworkInfos()[0]
	if mapped.GetName() != "bridge" || mapped.GetPortMappings()[0].GetHostPort() != 31000 || mapped.GetPortMappings()[0].GetContainerPort() != 80 {
		t.Errorf("network %v", mapped)
	}
	if v := tasks[0].GetContainer().GetVolumes()[0]; v.GetSource().GetSandboxPath().GetPath() != "v" || v.GetContainerPath() != "d" {
		t.Errorf("volume %v", v)
	}
	if p := tasks[1].GetHealthCheck().GetHttp().GetPort(); p != 80 {
		t.Errorf("checked at port %d, want that of the container", p)
	}
	if c := tasks[1].GetCommand(); c.Value != nil || len(c.GetArguments()) != 2 {
		t.Errorf("command %v: arguments go behind the entry point", c)
	}
	if g := tasks[1].GetKillPolicy().GetGracePeriod().GetNanoseconds(); g != 500_000_000 {
		t.Errorf("grace %d", g)
	}
	env := make(map[string]string)
	for _, v := range tasks[0].GetCommand().GetEnvironment().GetVariables() {
		env[v.GetName()] = v.GetValue()
	}
	for name, want := range map[string]string{
		"X": "one", "Y": "pod", "ENDPOINT_W_B": "80", "EP_CONTAINER_W_B": "80", "EP_HOST_W_B": "31000", "HOST": "h",
		"MARATHON_CONTAINER_ID": "one", "MARATHON_APP_LABEL_L": "pod", "MESOS_EXECUTOR_ID": executor.GetExecutorId().GetValue(),
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
}
