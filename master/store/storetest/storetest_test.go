package storetest

import (
	"errors"
	"testing"

	"starling/master/store"
)

func TestFake(t *testing.T) {
	Run(t, func(*testing.T) store.Store { return new(Fake) })
}

func TestFakeDamage(t *testing.T) {
	RunDamaged(t, func(*testing.T) (store.Store, func(string)) {
		f := new(Fake)
		return f, f.Damage
	})
}

func TestFakeFailsOnCommand(t *testing.T) {
	f := new(Fake)
	write(t, f, put("a", "1"))
	broken := errors.New("unreachable")
	f.Fail(broken)
	if _, err := f.Write(t.Context(), put("a", "2")); !errors.Is(err, broken) {
		t.Errorf("want %v, got %v", broken, err)
	}
	if _, err := f.Get(t.Context(), "a"); !errors.Is(err, broken) {
		t.Errorf("want %v, got %v", broken, err)
	}
	f.Fail(nil)
	want(t, f, "a", "1")
}
