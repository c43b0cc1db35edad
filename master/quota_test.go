package master_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"starling/gossip/record"
	"starling/master"
	"starling/master/mastertest"
	"starling/master/mesos"
	"starling/master/mesos/quota"
	"starling/master/mesos/resources"
	"starling/master/mesos/scheduler"
)

// quotas reads configurations such as "eng guarantees=cpus:1;mem:32 limits=cpus:2".
func quotas(t *testing.T, texts ...string) []*quota.QuotaConfig {
	t.Helper()
	var configs []*quota.QuotaConfig
	for _, text := range texts {
		words := strings.Fields(text)
		config := &quota.QuotaConfig{Role: proto.String(words[0])}
		for _, word := range words[1:] {
			kind, list, _ := strings.Cut(word, "=")
			amounts := make(map[string]*mesos.Value_Scalar)
			for one := range strings.SplitSeq(list, ";") {
				name, number, _ := strings.Cut(one, ":")
				value, err := strconv.ParseFloat(number, 64)
				if err != nil {
					t.Fatal(err)
				}
				amounts[name] = &mesos.Value_Scalar{Value: proto.Float64(value)}
			}
			if kind == "limits" {
				config.Limits = amounts
			} else {
				config.Guarantees = amounts
			}
		}
		configs = append(configs, config)
	}
	return configs
}

func updateQuota(t *testing.T, m *master.Master, texts ...string) {
	t.Helper()
	if err := m.UpdateQuota(t.Context(), quotas(t, texts...), false); err != nil {
		t.Fatalf("quota %q refused: %v", texts, err)
	}
}

// wantQuotas compares all quotas, written as "role guarantee|limit".
func wantQuotas(t *testing.T, m *master.Master, want ...string) {
	t.Helper()
	v := view(t, m)
	var got []string
	for _, role := range slices.Sorted(maps.Keys(v.Quotas)) {
		got = append(got, role+" "+v.Quotas[role].Guarantee.String()+"|"+v.Quotas[role].Limit.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("quotas: got %q, want %q", got, want)
	}
}

// request is the older form of a quota.
func request(t *testing.T, role, guarantee string, force bool) *quota.QuotaRequest {
	t.Helper()
	rs, err := resources.Parse(guarantee, "*")
	if err != nil {
		t.Fatal(err)
	}
	return &quota.QuotaRequest{Role: proto.String(role), Guarantee: rs.ProtoPreRefinement(), Force: proto.Bool(force)}
}

// A role with a guarantee gets its share although another holds all offers: so much of them is rescinded as it takes, the
// oldest first, and what the role does not need goes back to who had it.
func TestGuaranteeIsMetByRescinding(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		for n := range 3 {
			c.AddAgent(n+1, "cpus:4;mem:4096")
		}
		c.Elect()
		synctest.Wait()
		b := mastertest.Subscribe(t, c.Master, mastertest.Info("b", []string{"b"}, multiRole))
		if got := len(b.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers()); got != 3 {
			t.Fatalf("b: got %d offers, want 3", got)
		}
		a := mastertest.Subscribe(t, c.Master, mastertest.Info("a", []string{"a/x"}, multiRole))
		a.ExpectSilence(time.Minute)

		updateQuota(t, c.Master, "a guarantees=cpus:5")
		b.Expect(scheduler.Event_RESCIND)
		b.Expect(scheduler.Event_RESCIND)
		cpus := resources.Milli(0)
		for _, o := range a.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers() {
			r, err := resources.FromProto(o.GetResources())
			if err != nil {
				t.Fatal(err)
			}
			cpus += r.Scalar("cpus")
		}
		if cpus < 5000 {
			t.Errorf("a is offered %v CPUs of the 5 it is guaranteed", cpus)
		}
		checkBooks(t, c.Master)
		values, err := c.Master.Metrics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]float64{"guarantee": 5, "offered_or_allocated": cpus.Float()} {
			if got := values["allocator/mesos/quota/roles/a/resources/cpus/"+name]; got != want {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
	})
}

// A guarantee is kept free for a role without any framework, and another's guarantee is not taken for it.
func TestGuaranteesDontRobEachOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		for n := range 2 {
			c.AddAgent(n+1, "cpus:4;mem:4096")
		}
		c.Elect()
		synctest.Wait()
		updateQuota(t, c.Master, "b guarantees=cpus:8")
		b := mastertest.Subscribe(t, c.Master, mastertest.Info("b", []string{"b"}, multiRole))
		if got := len(b.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers()); got != 2 {
			t.Fatalf("b: got %d offers, want 2", got)
		}
		// More than there is takes force, and then the first one keeps what it has.
		if err := c.Master.UpdateQuota(t.Context(), quotas(t, "a guarantees=cpus:2"), false); err == nil {
			t.Error("more was guaranteed than there is")
		}
		if err := c.Master.UpdateQuota(t.Context(), quotas(t, "a guarantees=cpus:2"), true); err != nil {
			t.Fatal(err)
		}
		b.ExpectSilence(time.Second)
		// With less to keep for b, a gets room, though nobody is there to use it.
		updateQuota(t, c.Master, "b guarantees=cpus:4")
		b.Expect(scheduler.Event_RESCIND)
		if got, want := held(t, b.ExpectOffer().GetResources()), "cpus:2;mem:4096"; got != want {
			t.Errorf("b is offered anew: got %s, want %s", got, want)
		}
		checkBooks(t, c.Master)
	})
}

// Offers beyond a new limit are rescinded, what a task holds stays, and no more is offered than what is left.
func TestLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"eng/web"}, multiRole))
		task := mastertest.Task("t", "cpus:1;mem:1024")
		f.Launch(f.ExpectOffer(), 0, task)
		f.ExpectUpdate("t", running)
		if got, want := held(t, f.ExpectOffer().GetResources()), "cpus:3;mem:3072"; got != want {
			t.Fatalf("what is left: got %s, want %s", got, want)
		}
		err := c.Master.UpdateQuota(t.Context(), quotas(t, "eng limits=cpus:0.5"), false)
		wantRefusal(t, err, master.Invalid, "Role 'eng' is already consuming 'cpus:1;mem:1024'; this is higher than the requested limits 'cpus:0.5'")
		updateQuota(t, c.Master, "eng limits=cpus:2.5;disk:0")
		f.Expect(scheduler.Event_RESCIND)
		offer := f.ExpectOffer()
		if got, want := held(t, offer.GetResources()), "cpus:1.5;mem:3072"; got != want {
			t.Errorf("below the limit: got %s, want %s", got, want)
		}
		if err := c.Master.UpdateQuota(t.Context(), quotas(t, "eng limits=cpus:0.5;mem:1024"), true); err != nil {
			t.Fatal(err)
		}
		f.Expect(scheduler.Event_RESCIND)
		f.ExpectSilence(time.Minute)
		checkBooks(t, c.Master)
		// Without any quota all flows again.
		if err := c.Master.RemoveQuota(t.Context(), "eng"); err != nil {
			t.Fatal(err)
		}
		if got, want := held(t, f.ExpectOffer().GetResources()), "cpus:3;mem:3072"; got != want {
			t.Errorf("without a limit: got %s, want %s", got, want)
		}
	})
}

// Quotas come back with the next leader, which keeps to them from its first offer on.
func TestQuotaIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, nil)
		updateQuota(t, c.Master, "eng guarantees=cpus:1 limits=cpus:2;mem:0", "ops limits=cpus:0", "gone limits=cpus:3")
		updateQuota(t, c.Master, "gone")
		if err := c.Master.SetQuota(t.Context(), request(t, "old", "cpus:1.5;mem:64", false)); err != nil {
			t.Fatal(err)
		}
		want := []string{"eng cpus:1|cpus:2;mem:0", "old cpus:1.5;mem:64|cpus:1.5;mem:64", "ops |cpus:0"}
		wantQuotas(t, c.Master, want...)
		next := takeOver(t, c, nil, a)
		wantQuotas(t, next.Master, want...)
		f := mastertest.Subscribe(t, next.Master, mastertest.Info("f", []string{"web"}, multiRole))
		if got, want := held(t, f.ExpectOffer().GetResources()), "cpus:1.5;mem:4032"; got != want {
			t.Errorf("what is not kept for others: got %s, want %s", got, want)
		}
		if err := next.Master.RemoveQuota(t.Context(), "old"); err != nil {
			t.Fatal(err)
		}
		wantQuotas(t, takeOver(t, next, nil, a).Master, want[0], want[2])
	})
}

// What is reserved for a role counts once against its quota, whether it is used or not, and serves its own guarantee alone.
func TestQuotaAndReservations(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		c.AddAgent(1, "cpus:2;mem:2048;cpus(eng):3;mem(eng):1024")
		c.Elect()
		synctest.Wait()
		err := c.Master.UpdateQuota(t.Context(), quotas(t, "eng limits=cpus:2"), false)
		wantRefusal(t, err, master.Invalid, "already consuming 'cpus:3;mem:1024'")
		err = c.Master.UpdateQuota(t.Context(), quotas(t, "ops guarantees=cpus:3"), false)
		wantRefusal(t, err, master.Invalid, "Total quota guarantees 'cpus:3' exceed cluster capacity 'cpus:2;mem:2048'")
		updateQuota(t, c.Master, "eng guarantees=cpus:4 limits=cpus:4")
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"eng"}, multiRole))
		offer := f.ExpectOffer()
		if got, want := held(t, offer.GetResources()), "cpus:4;mem:3072"; got != want {
			t.Errorf("offered: got %s, want %s", got, want)
		}
		checkBooks(t, c.Master)
		for _, r := range view(t, c.Master).RoleViews() {
			if got, want := r.Consumed.String(), "cpus:3;mem:1024"; r.Name == "eng" && got != want {
				t.Errorf("consumed: got %s, want %s", got, want)
			}
		}
	})
}

func TestQuotaRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, func(cfg *master.Config) { cfg.Roles = []string{"eng", "eng/web", "ops"} })
		updateQuota(t, c.Master, "ops limits=cpus:1")
		for name, test := range map[string]struct{ config, want string }{
			"nested role":         {"eng/web limits=cpus:1", "Setting quota on nested role 'eng/web' is not supported yet"},
			"default role":        {"* limits=cpus:1", "Invalid QuotaConfig: Invalid 'QuotaConfig.role': setting quota for the default '*' role is not supported"},
			"bad role":            {"a//b limits=cpus:1", "Invalid QuotaConfig: Invalid 'QuotaConfig.role'"},
			"unknown role":        {"web limits=cpus:1", "Invalid QuotaConfig: Unknown role 'web'"},
			"negative guarantee":  {"eng guarantees=cpus:-1", "Invalid QuotaConfig: Invalid guarantee configuration {'cpus': -1}"},
			"limit not a number":  {"eng limits=cpus:NaN", "Invalid QuotaConfig: Invalid limit configuration {'cpus': NaN}"},
			"endless limit":       {"eng limits=cpus:Inf", "Invalid QuotaConfig: Invalid limit configuration {'cpus': +Inf}"},
			"ports":               {"eng limits=ports:1", "only scalar resources can have a quota"},
			"nameless":            {"eng limits=:1", "the name of the resource is empty"},
			"more than the limit": {"eng guarantees=cpus:2;mem:1 limits=cpus:1", "'QuotaConfig.guarantees' {cpus:2, mem:1} is not contained within the 'QuotaConfig.limits' {cpus:1}"},
			"beyond the cluster":  {"eng guarantees=cpus:4.001", "Invalid QuotaConfig: Total quota guarantees 'cpus:4.001' exceed cluster capacity 'cpus:4;mem:4096'; you may bypass this check by setting the 'force' field"},
			"unknown resource":    {"eng guarantees=bananas:1", "Total quota guarantees 'bananas:1' exceed cluster capacity"},
			"twice":               {"ops limits=cpus:2", "Invalid QuotaConfig: Role 'ops' is given twice"},
		} {
			// All or nothing: what comes first is not set either.
			err := c.Master.UpdateQuota(t.Context(), quotas(t, "ops limits=cpus:3", test.config), false)
			t.Log(name)
			wantRefusal(t, err, master.Invalid, test.want)
			if name != "beyond the cluster" && name != "unknown resource" {
				if err := c.Master.UpdateQuota(t.Context(), quotas(t, "ops limits=cpus:3", test.config), true); err == nil {
					t.Errorf("%s: accepted with force", name)
				}
			}
		}
		wantQuotas(t, c.Master, "ops |cpus:1")

		for name, test := range map[string]struct {
			request *quota.QuotaRequest
			kind    master.Kind
			want    string
		}{
			"no role":      {&quota.QuotaRequest{}, master.Invalid, "Failed to validate set quota request: QuotaInfo must specify a role"},
			"no guarantee": {&quota.QuotaRequest{Role: proto.String("eng")}, master.Invalid, "QuotaInfo with empty 'guarantee'"},
			"ranges":       {request(t, "eng", "ports:[1-2]", false), master.Invalid, "QuotaInfo must not include non-scalar resources"},
			"set":          {request(t, "eng", "bugs:{a}", false), master.Invalid, "QuotaInfo must not include non-scalar resources"},
			"reserved":     {request(t, "eng", "cpus(eng):1", false), master.Invalid, "QuotaInfo must not contain any ReservationInfo"},
			"twice": {
				&quota.QuotaRequest{Role: proto.String("eng"), Guarantee: slices.Concat(request(t, "", "cpus:1", false).Guarantee, request(t, "", "cpus:1", false).Guarantee)},
				master.Invalid, "QuotaInfo contains duplicate resource name 'cpus'",
			},
			"nested":     {request(t, "eng/web", "cpus:1", false), master.Invalid, "Setting quota on nested role 'eng/web' is not supported yet"},
			"unknown":    {request(t, "web", "cpus:1", false), master.Invalid, "Failed to validate set quota request: Unknown role 'web'"},
			"has one":    {request(t, "ops", "cpus:1", true), master.Invalid, "Cannot set quota for role 'ops' which already has quota"},
			"overcommit": {request(t, "eng", "cpus:5", false), master.Conflict, "Heuristic capacity check for set quota request failed: Total quota guarantees 'cpus:5' exceed cluster capacity"},
			"default":    {request(t, "*", "cpus:1", true), master.Invalid, "QuotaInfo with invalid role: setting quota for the default '*' role"},
		} {
			err := c.Master.SetQuota(t.Context(), test.request)
			t.Log("set:", name)
			wantRefusal(t, err, test.kind, test.want)
		}
		wantRefusal(t, c.Master.RemoveQuota(t.Context(), "eng"), master.Invalid, "Role 'eng' has no quota set")
		wantRefusal(t, c.Master.RemoveQuota(t.Context(), "web"), master.Invalid, "Unknown role 'web'")
		wantQuotas(t, c.Master, "ops |cpus:1")
		if err := c.Master.SetQuota(t.Context(), request(t, "eng", "cpus:5", true)); err != nil {
			t.Errorf("forced: %v", err)
		}
	})
}

// A master that does not lead changes nothing.
func TestQuotaNeedsALeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		synctest.Wait()
		if err := c.Master.UpdateQuota(t.Context(), quotas(t, "eng limits=cpus:1"), false); err != master.ErrNotLeading {
			t.Errorf("got %v, want %v", err, master.ErrNotLeading)
		}
	})
}

// What is reserved on an agent that was given up meets no guarantee; with the agent it counts again.
func TestGuaranteeWithoutTheAgent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := mastertest.Start(t, nil, nil)
		c.AddAgent(1, "cpus:4;mem:4096")
		a := c.AddAgent(2, "cpus(eng):4;mem(eng):4096")
		c.Elect()
		synctest.Wait()
		updateQuota(t, c.Master, "eng guarantees=cpus:4")
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"ops"}, multiRole))
		offer := f.ExpectOffer()
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Dead)
		f.Expect(scheduler.Event_FAILURE)
		f.Decline(0, offer)
		if got, want := held(t, f.ExpectOffer().GetResources()), "mem:4096"; got != want {
			t.Errorf("offered while the guarantee is not met: got %s, want %s", got, want)
		}
		c.Mesh.SetLiveness(time.Now(), a.ID, record.Alive)
		if got, want := held(t, f.ExpectOffer().GetResources()), "cpus:4"; got != want {
			t.Errorf("offered once the agent is back: got %s, want %s", got, want)
		}
		checkBooks(t, c.Master)
	})
}

// A role that reserves what it is offered has no more and no less than before: the reservation counts against its limit once.
func TestReservingWithinALimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, _ := leading(t, nil)
		updateQuota(t, c.Master, "eng guarantees=cpus:3 limits=cpus:3")
		f := mastertest.Subscribe(t, c.Master, mastertest.Info("f", []string{"eng"}))
		offer := f.ExpectOffer()
		if got, want := held(t, offer.GetResources()), "cpus:3;mem:4096"; got != want {
			t.Fatalf("before: got %s, want %s", got, want)
		}
		f.Call(&scheduler.Call{Type: scheduler.Call_ACCEPT.Enum(), Accept: &scheduler.Call_Accept{
			OfferIds: []*mesos.OfferID{offer.GetId()}, Filters: &mesos.Filters{RefuseSeconds: proto.Float64(0)},
			Operations: []*mesos.Offer_Operation{mastertest.Reserve("", "eng", "", "cpus:2")},
		}})
		offered := make(map[string]resources.Milli)
		for offered["eng"] < 2000 {
			for _, o := range f.Expect(scheduler.Event_OFFERS).GetOffers().GetOffers() {
				for _, r := range o.GetResources() {
					if r.GetName() == "cpus" {
						amount, err := resources.FromFloat(r.GetScalar().GetValue())
						if err != nil {
							t.Fatal(err)
						}
						offered[r.GetRole()] += amount
					}
				}
			}
		}
		if offered["eng"] != 2000 || offered["*"] != 1000 {
			t.Errorf("after: got %v, want 2 reserved and 1 not", offered)
		}
		f.ExpectSilence(time.Minute)
		for _, r := range view(t, c.Master).RoleViews() {
			if got, want := r.Consumed.String(), "cpus:2"; r.Name == "eng" && got != want {
				t.Errorf("consumed: got %s, want %s", got, want)
			}
		}
		checkBooks(t, c.Master)
	})
}

// With a list of roles no other can be used: not to subscribe, nor to reserve for; all others are known, used or not.
func TestListedRolesAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c, a := leading(t, func(cfg *master.Config) { cfg.Roles = []string{"eng", "eng/web"} })
		f := mastertest.TrySubscribe(t, c.Master, mastertest.Info("f", []string{"eng", "ops"}, multiRole))
		if got, want := f.Expect(scheduler.Event_ERROR).GetError().GetMessage(), "Roles { ops } are not present in the master's --roles"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		err := c.Master.Operate(t.Context(), a.ID, mastertest.Reserve("", "ops", "", "cpus:1"), "")
		wantRefusal(t, err, master.Invalid, "Role 'ops' is not present in the master's --roles")
		if err := c.Master.Operate(t.Context(), a.ID, mastertest.Reserve("", "eng/web", "", "cpus:1"), ""); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		var names []string
		for _, r := range view(t, c.Master).RoleViews() {
			names = append(names, r.Name+" "+strings.Join(r.Reserved.Names(), ","))
		}
		if want := []string{"* ", "eng cpus", "eng/web cpus"}; !slices.Equal(names, want) {
			t.Errorf("roles and what is reserved: got %q, want %q", names, want)
		}
	})
}
