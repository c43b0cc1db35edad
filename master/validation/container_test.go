package validation

import "testing"

func TestNoContainerIsValid(t *testing.T) {
	if err := Container(nil); err != nil {
		t.Errorf("Container(nil) = %v, want nil: the type of nothing reads as DOCKER", err)
	}
}
