package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"starling/dns"
)

// asideTries is how many ports after a taken one are tried, where a port may move aside.
const asideTries = 100

// listen binds a TCP listener. A port that may move aside takes the next free one when it is taken.
func listen(what, ip string, port int, aside bool) (net.Listener, int, error) {
	var l net.Listener
	port, err := tryPorts(port, aside, func(port int) (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("cannot listen for %s: %w", what, err)
	}
	if port == 0 {
		port = l.Addr().(*net.TCPAddr).Port
	}
	return l, port, nil
}

// listenDNS binds UDP and TCP on the same port.
func listenDNS(ip string, port int, aside bool) (*dns.Listener, int, error) {
	var l *dns.Listener
	_, err := tryPorts(port, aside, func(port int) (err error) {
		l, err = dns.Listen(context.Background(), ip, port)
		return err
	})
	if err != nil {
		return nil, 0, explainDNS(fmt.Errorf("cannot listen for DNS: %w", err), ip, port)
	}
	return l, l.Port(), nil
}

// freePort finds a port that is free for TCP and UDP, for a component that binds it itself a moment later.
func freePort(ip string, port int) (int, error) {
	l, port, err := listenDNS(ip, port, true)
	if err != nil {
		return 0, err
	}
	return port, l.Close()
}

func tryPorts(port int, aside bool, bind func(port int) error) (int, error) {
	first := bind(port)
	if first == nil || !aside || !errors.Is(first, syscall.EADDRINUSE) {
		return port, first
	}
	for next := port + 1; next <= min(port+asideTries, 65535); next++ {
		err := bind(next)
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return 0, err
		}
	}
	return 0, first
}
