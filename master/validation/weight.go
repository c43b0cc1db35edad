package validation

import (
	"errors"
	"math"
)

// Weight checks the weight of a role.
func Weight(weight float64) error {
	// Written so that a NaN fails too.
	if !(weight > 0) || math.IsInf(weight, 0) {
		return errors.New("Weights must be positive")
	}
	return nil
}
