package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestARoleEndsWhenItsMachineMoves(t *testing.T) {
	const old = "10.0.0.1"
	at := func(addrs ...string) (list []net.Addr) {
		for _, a := range addrs {
			list = append(list, &net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(24, 32)})
		}
		return list
	}
	for _, tc := range []struct {
		name string
		// seen are the addresses second by second; the last ones stay.
		seen    [][]net.Addr
		failing bool // to list addresses
		private string
		moved   time.Duration // when it ends, 0 for never
	}{
		{"the address stays", [][]net.Addr{at(old)}, false, old, 0},
		{"another one is added", [][]net.Addr{at(old), at(old, "10.0.0.2")}, false, "10.0.0.2", 0},
		{"it is another", [][]net.Addr{at("10.0.0.2")}, false, "10.0.0.2", 3 * time.Second},
		{"it is gone for two seconds", [][]net.Addr{at(), at("10.0.0.2"), at(old)}, false, "10.0.0.2", 0},
		{"it is gone, and no other is there", [][]net.Addr{at("127.0.0.1")}, false, "", 0},
		{"addresses cannot be listed", nil, true, "10.0.0.2", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				looks := 0
				m := machine{
					all: func() ([]net.Addr, error) {
						if tc.failing {
							return nil, errors.New("no")
						}
						looks++
						return tc.seen[min(looks, len(tc.seen))-1], nil
					},
					private: func() (netip.Addr, error) { return netip.ParseAddr(tc.private) },
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				began := time.Now()
				err := m.stays(ctx, old)
				took := time.Since(began)
				if tc.moved == 0 && (err != nil || took < time.Hour) {
					t.Errorf("ended after %v with %v, want to go on", took, err)
				}
				if tc.moved > 0 && (!errors.Is(err, ErrMoved) || took != tc.moved) {
					t.Errorf("ended after %v with %v, want ErrMoved after %v", took, err, tc.moved)
				}
			})
		})
	}
}
