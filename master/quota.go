package master

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"starling/master/allocator"
	"starling/master/mesos/quota"
	"starling/master/mesos/resources"
	"starling/master/validation"
)

// The document "quota" is a quotaDoc: the quotas of all roles that have one.
//
// History of the format: 1, 2026-11, first version.
const docQuota = "quota"

type quotaDoc struct {
	Format int                  `json:"format"`
	Quotas map[string]roleQuota `json:"quotas"`
}

// roleQuota is that of one role, in thousandths by name. A limit of 0 is one.
type roleQuota struct {
	Guarantees allocator.Quantities `json:"guarantees,omitempty"`
	Limits     allocator.Quantities `json:"limits,omitempty"`
}

// recoverQuota takes the quotas that an earlier leader kept.
func (m *Master) recoverQuota(others map[string][]byte) {
	m.quotas, m.quotaFault = nil, nil
	data, kept := others[docQuota]
	if !kept {
		return
	}
	quotas, err := decodeQuota(data)
	if err != nil {
		m.quotaFault = unreadable(docQuota, err)
		m.log.Error("document is unreadable, offers go on without any quota, and none can be set", "key", docQuota, "err", err)
		return
	}
	m.quotas = quotas
}

func decodeQuota(data []byte) (map[string]allocator.Quota, error) {
	doc := new(quotaDoc)
	if err := json.Unmarshal(data, doc); err != nil {
		return nil, err
	}
	if doc.Format != docFormat {
		return nil, fmt.Errorf("format %d is not known", doc.Format)
	}
	quotas := make(map[string]allocator.Quota, len(doc.Quotas))
	for _, role := range slices.Sorted(maps.Keys(doc.Quotas)) {
		if err := validation.QuotaRole(role); err != nil {
			return nil, fmt.Errorf("role %q: %w", role, err)
		}
		q := allocator.Quota{Guarantee: doc.Quotas[role].Guarantees, Limit: doc.Quotas[role].Limits}
		for _, amounts := range []allocator.Quantities{q.Guarantee, q.Limit} {
			for name, amount := range amounts {
				if amount < 0 {
					return nil, fmt.Errorf("role %q: %v of %q is negative", role, amount, name)
				}
			}
		}
		quotas[role] = q
	}
	return quotas, nil
}

// UpdateQuota sets the quotas of roles, all of them or none; one without guarantees and limits is removed. Unless forced, it
// refuses guarantees that the cluster could not keep, and limits below what the role consumes. The error may be a Refusal.
func (m *Master) UpdateQuota(ctx context.Context, configs []*quota.QuotaConfig, force bool) error {
	return m.changeQuota(ctx, func(next map[string]allocator.Quota) error {
		seen := make(map[string]bool)
		for _, config := range configs {
			role := config.GetRole()
			q, err := m.readQuota(config)
			if err != nil {
				return err
			}
			if seen[role] {
				return refuse(Invalid, "Invalid QuotaConfig: Role '%s' is given twice", role)
			}
			seen[role] = true
			delete(next, role)
			if len(q.Guarantee) > 0 || len(q.Limit) > 0 {
				next[role] = q
			}
		}
		if force {
			return nil
		}
		use := m.roleUse()
		for _, config := range configs {
			role := config.GetRole()
			consumed := use.consumed(role)
			for name, limit := range next[role].Limit {
				if consumed[name] > limit {
					return refuse(Invalid, "Invalid QuotaConfig: Role '%s' is already consuming '%s'; this is higher than the requested limits '%s';"+
						" you may bypass this check by setting the 'force' field", role, consumed, next[role].Limit)
				}
			}
		}
		if err := m.overcommitted(next, use); err != nil {
			return refuse(Invalid, "Invalid QuotaConfig: %v; you may bypass this check by setting the 'force' field", err)
		}
		return nil
	})
}

// readQuota checks one configuration by itself.
func (m *Master) readQuota(config *quota.QuotaConfig) (allocator.Quota, error) {
	role := config.GetRole()
	guarantees, limits, err := validation.QuotaConfig(config)
	switch {
	case err != nil:
		return allocator.Quota{}, refuse(Invalid, "Invalid QuotaConfig: %v", err)
	case !m.cfg.whitelisted(role):
		return allocator.Quota{}, refuse(Invalid, "Invalid QuotaConfig: Unknown role '%s': it is not present in the master's --roles", role)
	case strings.Contains(role, "/"):
		return allocator.Quota{}, refuse(Invalid, "Setting quota on nested role '%s' is not supported yet", role)
	}
	return allocator.Quota{Guarantee: guarantees, Limit: limits}, nil
}

// SetQuota is the older way to set a quota: for one role, which must have none, with a guarantee that is also the limit. The
// error may be a Refusal; it is a Conflict where the cluster could not keep the guarantee, unless the request is forced.
func (m *Master) SetQuota(ctx context.Context, request *quota.QuotaRequest) error {
	const failed = "Failed to validate set quota request: "
	return m.changeQuota(ctx, func(next map[string]allocator.Quota) error {
		config, err := validation.QuotaRequest(request)
		if err != nil {
			return refuse(Invalid, failed+"%v", err)
		}
		role := config.GetRole()
		if !m.cfg.whitelisted(role) {
			return refuse(Invalid, failed+"Unknown role '%s'", role)
		}
		if _, has := next[role]; has {
			return refuse(Invalid, failed+"Cannot set quota for role '%s' which already has quota", role)
		}
		if next[role], err = m.readQuota(config); err != nil || request.GetForce() {
			return err
		}
		if err := m.overcommitted(next, m.roleUse()); err != nil {
			return refuse(Conflict, "Heuristic capacity check for set quota request failed: %v", err)
		}
		return nil
	})
}

// RemoveQuota removes the quota of a role, which must have one. The error may be a Refusal.
func (m *Master) RemoveQuota(ctx context.Context, role string) error {
	return m.changeQuota(ctx, func(next map[string]allocator.Quota) error {
		if !m.cfg.whitelisted(role) {
			return refuse(Invalid, "Failed to validate remove quota request for role '%s': Unknown role '%s'", role, role)
		}
		if _, has := next[role]; !has {
			return refuse(Invalid, "Failed to remove quota for role '%s': Role '%s' has no quota set", role, role)
		}
		delete(next, role)
		return nil
	})
}

// changeQuota has change make the quotas that are to hold from now on out of a copy of those that do. An error of its leaves
// all as it is.
func (m *Master) changeQuota(ctx context.Context, change func(next map[string]allocator.Quota) error) error {
	return m.commit(ctx, func() ([]keptDoc, error) {
		if m.quotaFault != nil {
			return nil, m.quotaFault
		}
		next := maps.Clone(m.quotas)
		if next == nil {
			next = make(map[string]allocator.Quota)
		}
		if err := change(next); err != nil {
			return nil, err
		}
		kept := quotaDoc{Format: docFormat, Quotas: make(map[string]roleQuota, len(next))}
		for role, q := range next {
			kept.Quotas[role] = roleQuota{Guarantees: q.Guarantee, Limits: q.Limit}
		}
		doc, err := encodeDoc(docQuota, kept)
		if err != nil {
			return nil, err
		}
		m.setQuotas(next)
		return []keptDoc{doc}, nil
	})
}

// setQuotas replaces all quotas. The old map stays as it is for those who read it.
func (m *Master) setQuotas(next map[string]allocator.Quota) {
	for role := range m.quotas {
		if _, stays := next[role]; !stays {
			m.alloc.SetQuota(role, allocator.Quota{})
			m.log.Info("quota removed", "role", role)
		}
	}
	for role, q := range next {
		if old, had := m.quotas[role]; !had || !maps.Equal(old.Guarantee, q.Guarantee) || !maps.Equal(old.Limit, q.Limit) {
			m.alloc.SetQuota(role, q)
			m.log.Info("quota set", "role", role, "guarantee", q.Guarantee.String(), "limit", q.Limit.String())
		}
	}
	m.quotas = next
	m.makeRoom()
	m.wantAllocation()
}

// overcommitted tells of guarantees that were raised to more than the cluster has. What is reserved for a role serves its
// own guarantee and no other.
func (m *Master) overcommitted(next map[string]allocator.Quota, use roleUse) error {
	raised := false
	guarantees := make(allocator.Quantities)
	capacity := maps.Clone(use.unreserved)
	for role, q := range next {
		reserved := use.reservedFor(role)
		for name, amount := range q.Guarantee {
			guarantees[name] += amount
			capacity[name] += min(amount, reserved[name])
			raised = raised || amount > m.quotas[role].Guarantee[name]
		}
	}
	if !raised {
		return nil // it was so before, by force or since agents were lost
	}
	for name, amount := range guarantees {
		if amount > capacity[name] {
			return fmt.Errorf("Total quota guarantees '%s' exceed cluster capacity '%s'", guarantees, capacity)
		}
	}
	return nil
}

// makeRoom rescinds offers, the oldest first, that are beyond the limit of their role, and then those that have what others
// are guaranteed and cannot get.
func (m *Master) makeRoom() {
	offers := slices.SortedFunc(maps.Values(m.offers), compareOffers)
	offers = slices.DeleteFunc(offers, func(o *offer) bool {
		over := m.overLimit(o)
		if over {
			m.rescind(o)
		}
		return over
	})
	for _, o := range offers {
		short := m.alloc.Short()
		if len(short) == 0 {
			return
		}
		if m.serves(o, short) {
			m.rescind(o)
		}
	}
}

// quotasOf are the quotas that an offer counts against, by role.
func (m *Master) quotasOf(o *offer) map[string]allocator.Quota {
	found := make(map[string]allocator.Quota)
	for role := range ancestors(o.role) {
		if q, has := m.quotas[role]; has {
			found[role] = q
		}
	}
	return found
}

// overLimit tells whether an offer has something of which its role is over its limit.
func (m *Master) overLimit(o *offer) bool {
	plain := o.resources.Unreserved().NonRevocable()
	for role, q := range m.quotasOf(o) {
		charged := m.alloc.Charged(role)
		for name, limit := range q.Limit {
			if charged[name] > limit && plain.Scalar(name) > 0 {
				return true
			}
		}
	}
	return false
}

// serves tells whether an offer has something of what is short, and is not itself what its role is guaranteed.
func (m *Master) serves(o *offer, short allocator.Quantities) bool {
	plain := o.resources.Unreserved().NonRevocable()
	own := m.quotasOf(o)
	for name := range short {
		has := plain.Scalar(name)
		spared := has > 0
		for role, q := range own {
			if m.alloc.Charged(role)[name]-has < q.Guarantee[name] {
				spared = false
			}
		}
		if spared {
			return true
		}
	}
	return false
}

// measureQuota adds the numbers of quotas.
func (m *Master) measureQuota(out map[string]float64) {
	if m.alloc == nil {
		return
	}
	for role, q := range m.quotas {
		prefix := "allocator/mesos/quota/roles/" + role + "/resources/"
		charged := m.alloc.Charged(role)
		for name, amount := range q.Guarantee {
			out[prefix+name+"/guarantee"] = amount.Float()
			out[prefix+name+"/offered_or_allocated"] = charged[name].Float()
		}
		for name, amount := range q.Limit {
			out[prefix+name+"/limit"] = amount.Float()
			out[prefix+name+"/offered_or_allocated"] = charged[name].Float()
		}
	}
}

// roleUse is what roles have of the cluster, those below them included.
type roleUse struct {
	// unreserved is what agents have for everybody.
	unreserved allocator.Quantities
	// reserved and allocated are by role.
	reserved, allocated map[string]resources.Resources
}

func newRoleUse() roleUse {
	return roleUse{
		unreserved: make(allocator.Quantities), reserved: make(map[string]resources.Resources), allocated: make(map[string]resources.Resources),
	}
}

// roleUse sums up all agents that can be reached.
func (m *Master) roleUse() roleUse {
	use := newRoleUse()
	for _, a := range m.agents {
		if !a.unreachable.IsZero() {
			continue
		}
		use.addAgent(a.total)
		for _, r := range a.used {
			use.addAllocated(r)
		}
	}
	return use
}

func (u roleUse) addAgent(total resources.Resources) {
	for name, amount := range total.Unreserved().NonRevocable().Scalars() {
		u.unreserved[name] += amount
	}
	for _, role := range total.ReservedRoles() {
		addUpwards(u.reserved, role, total.ReservedFor(role))
	}
}

// addAllocated adds resources that are allocated to roles.
func (u roleUse) addAllocated(r resources.Resources) { addByAllocation(u.allocated, r) }

// consumed is what counts against the quota of a role while it holds no offers: all that is reserved for it, used or not, and
// what it uses of the rest, revocable resources aside.
func (u roleUse) consumed(role string) allocator.Quantities {
	sum := u.reservedFor(role)
	for name, amount := range u.allocated[role].Unreserved().NonRevocable().Scalars() {
		sum[name] += amount
	}
	return sum
}

func (u roleUse) reservedFor(role string) allocator.Quantities {
	sum := make(allocator.Quantities)
	maps.Insert(sum, u.reserved[role].NonRevocable().Scalars())
	return sum
}
