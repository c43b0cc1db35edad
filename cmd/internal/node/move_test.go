package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
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
	first := func(now []net.Addr) string {
		if len(now) == 0 {
			return ""
		}
		return now[0].(*net.IPNet).IP.String()
	}
	none := func([]net.Addr) string { return "" }
	gone := [][]net.Addr{at(), at(), at(), at(), at()}
	others := [][]net.Addr{at("10.0.0.2"), at("10.0.0.3")}
	both := slices.Repeat([][]net.Addr{at(old, "10.8.0.1")}, 3)
	tunnel := slices.Repeat([][]net.Addr{at("10.8.0.1")}, 30)
	for _, tc := range []struct {
		name string
		// seen are the addresses second by second from the start on; the last ones stay.
		seen    [][]net.Addr
		failing bool // to list addresses
		// best is the address to tell others, at that second.
		best  func(now []net.Addr) string
		moved time.Duration // when it ends, 0 for never
	}{
		{"the address stays", [][]net.Addr{at(old)}, false, first, 0},
		{"another one is added", [][]net.Addr{at(old), at("10.0.0.2", old)}, false, first, 0},
		{"it is another", [][]net.Addr{at(old), at("10.0.0.2")}, false, first, 3 * time.Second},
		{"it is gone for a while, then it is another", slices.Concat(gone, gone, [][]net.Addr{at("10.0.0.2")}), false, first, 12 * time.Second},
		{"it is gone for two seconds", [][]net.Addr{at(old), at(), at("10.0.0.2"), at("10.0.0.2"), at(old)}, false, first, 0},
		{"it is gone, and no other is there", [][]net.Addr{at(old), at("127.0.0.1")}, false, none, 0},
		{"it is another each time", slices.Concat([][]net.Addr{at(old)}, others, others, others, [][]net.Addr{at(old)}), false, first, 0},
		{"it is another that came before it went", [][]net.Addr{at(old), at("10.0.0.2", old), at("10.0.0.2")}, false, first, 4 * time.Second},
		{"it is gone for a while beside a tunnel", slices.Concat(both, tunnel, both), false, first, 0},
		{"it is gone for long beside a tunnel", slices.Concat(both, tunnel[:1]), false, first, 62 * time.Second},
		{"it is another beside a tunnel", slices.Concat(both, [][]net.Addr{at("10.0.0.2", "10.8.0.1")}), false, first, 5 * time.Second},
		{"addresses cannot be listed", nil, true, none, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				looks := 0
				var now []net.Addr
				m := machine{
					all: func() ([]net.Addr, error) {
						if tc.failing {
							return nil, errors.New("no")
						}
						now = tc.seen[min(looks, len(tc.seen)-1)]
						looks++
						return now, nil
					},
					best: func() (netip.Addr, bool) {
						a, err := netip.ParseAddr(tc.best(now))
						return a, err == nil
					},
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
