package master

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"starling/master/mesos"
	"starling/master/mesos/resources"
	"starling/master/validation"
)

// The document "weights" is a weightsDoc: the weights of all roles that have one. While there is none, those of the
// configuration hold; the first change writes them along, and from then on the document alone counts.
//
// History of the format: 1, 2026-11, first version.
const docWeights = "weights"

type weightsDoc struct {
	Format  int                `json:"format"`
	Weights map[string]float64 `json:"weights"`
}

// recoverWeights takes the weights that an earlier leader kept.
func (m *Master) recoverWeights(others map[string][]byte) {
	m.weights, m.weightsFault = m.cfg.Weights, nil
	data, kept := others[docWeights]
	if !kept {
		return
	}
	doc := new(weightsDoc)
	if err := decodeWeights(data, doc); err != nil {
		m.weightsFault = unreadable(docWeights, err)
		m.log.Error("document is unreadable, weights of the configuration hold and cannot be changed", "key", docWeights, "err", err)
		return
	}
	m.weights = doc.Weights
}

func decodeWeights(data []byte, doc *weightsDoc) error {
	if err := json.Unmarshal(data, doc); err != nil {
		return err
	}
	if doc.Format != docFormat {
		return fmt.Errorf("format %d is not known", doc.Format)
	}
	for _, role := range slices.Sorted(maps.Keys(doc.Weights)) {
		if err := errors.Join(resources.CheckRole(role), validation.Weight(doc.Weights[role])); err != nil {
			return fmt.Errorf("role %q: %w", role, err)
		}
	}
	return nil
}

// unreadable is the refusal of what would replace a document that this master does not understand.
func unreadable(key string, err error) error {
	return refuse(Conflict, "The document '%s' in the store cannot be read by this master (%v); it must be repaired or removed first", key, err)
}

// UpdateWeights sets the weights of roles, all of them or none; roles that are not named keep theirs. Outstanding offers
// are rescinded where that changes who is to be offered what. The error may be a Refusal.
func (m *Master) UpdateWeights(ctx context.Context, infos []*mesos.WeightInfo) error {
	return m.commit(ctx, func() ([]keptDoc, error) {
		if m.weightsFault != nil {
			return nil, m.weightsFault
		}
		next := maps.Clone(m.weights)
		if next == nil {
			next = make(map[string]float64)
		}
		for _, info := range infos {
			role := strings.TrimSpace(info.GetRole())
			if err := m.checkWeight(role, info.GetWeight()); err != nil {
				return nil, err
			}
			next[role] = info.GetWeight()
		}
		// Written even where nothing changes: what it is now may not be safe yet.
		doc, err := encodeDoc(docWeights, weightsDoc{Format: docFormat, Weights: next})
		if err != nil {
			return nil, err
		}
		m.setWeights(next)
		return []keptDoc{doc}, nil
	})
}

func (m *Master) checkWeight(role string, weight float64) error {
	const failed = "Failed to validate update weights request JSON"
	if err := resources.CheckRole(role); err != nil {
		return refuse(Invalid, failed+": Invalid role '%s': %v", role, err)
	}
	if !m.cfg.whitelisted(role) {
		return refuse(Invalid, failed+": Role '%s' is not present in the master's --roles", role)
	}
	if err := validation.Weight(weight); err != nil {
		return refuse(Invalid, failed+" for role '%s': Invalid weight '%v': %v", role, weight, err)
	}
	return nil
}

// setWeights replaces all weights. The old map stays as it is for those who read it.
func (m *Master) setWeights(next map[string]float64) {
	var changed []string
	for role, weight := range next {
		if m.weightOf(role) != weight {
			changed = append(changed, role)
			m.alloc.SetWeight(role, weight)
		}
	}
	m.weights = next
	m.log.Info("weights updated", "roles", len(changed))
	// Offers were made by the old weights. Where a framework is concerned all are made anew: what one role is to have less,
	// any other may have more.
	if slices.ContainsFunc(changed, m.roleInUse) {
		m.rescindAll(maps.Values(m.offers))
	}
	m.wantAllocation()
}

func (m *Master) weightOf(role string) float64 {
	if weight, ok := m.weights[role]; ok {
		return weight
	}
	return 1
}

// roleInUse tells whether a framework subscribes to a role or to one below it.
func (m *Master) roleInUse(role string) bool {
	for _, f := range m.frameworks {
		if slices.ContainsFunc(f.roles, func(own string) bool { return inSubtree(own, role) }) {
			return true
		}
	}
	return false
}

// inSubtree tells whether a role is another one, or below it.
func inSubtree(role, top string) bool { return role == top || resources.IsSubRole(role, top) }
