package constraint

import "starling/marathon/app"

// Victims chooses which n of the instances at those places to end, so that what is left is spread as evenly as GROUP_BY
// constraints want it. places are in the order in which instances would be ended without constraints; the indices that
// are returned are in the order of choice. Without a GROUP_BY they are the first n.
func (r *Rules) Victims(places []Place, n int) []int {
	n = min(n, len(places))
	if n <= 0 {
		return nil
	}
	var fields []string
	if r != nil {
		for i := range r.rules {
			if r.rules[i].Operator == app.GroupBy {
				fields = append(fields, r.rules[i].Field)
			}
		}
	}
	counts := make([]map[string]int, len(fields))
	for i, field := range fields {
		counts[i] = countByValue(places, field)
	}
	chosen := make([]bool, len(places))
	victims := make([]int, 0, n)
	most := make([]int, len(fields))
	for range n {
		for j := range fields {
			most[j] = largest(counts[j])
		}
		// The first of those that stand where most do, by as many of the fields as possible.
		best, bestScore := -1, -1
		for i := range places {
			if chosen[i] {
				continue
			}
			score := 0
			for j, field := range fields {
				if value, ok := places[i].Value(field); ok && counts[j][value] == most[j] {
					score++
				}
			}
			if score > bestScore {
				best, bestScore = i, score
			}
		}
		chosen[best] = true
		victims = append(victims, best)
		for j, field := range fields {
			if value, ok := places[best].Value(field); ok {
				counts[j][value]--
			}
		}
	}
	return victims
}

func largest(counts map[string]int) int {
	most := 0
	for _, n := range counts {
		most = max(most, n)
	}
	return most
}
