//go:build !linux

package network

import (
	"context"
	"errors"
	"net/netip"
)

var errOther = errors.New("networks of containers are a thing of Linux")

func usable() error                                             { return errOther }
func bootID() string                                            { return "unknown" }
func inUse(netip.Addr) bool                                     { return false }
func makeNamespace(string) error                                { return errOther }
func kept(string) bool                                          { return false }
func dropNamespace(string) error                                { return nil }
func unplug(device) error                                       { return nil }
func (n *Networks) choosePlace(context.Context) error           { return errOther }
func (n *Networks) plug(context.Context, *record, device) error { return errOther }
func (n *Networks) apply(context.Context, *record) error        { return nil }
func (n *Networks) keep(context.Context) error                  { return nil }
func (n *Networks) sweep() error                                { return nil }
func (n *Networks) dismantle(context.Context) error             { return nil }
