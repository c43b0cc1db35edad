package node

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
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
func listenDNS(ip string, port int, aside bool) (net.PacketConn, net.Listener, int, error) {
	var udp net.PacketConn
	var tcp net.Listener
	_, err := tryPorts(port, aside, func(port int) (err error) {
		tcp, err = net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if err != nil {
			return err
		}
		if port == 0 {
			port = tcp.Addr().(*net.TCPAddr).Port
		}
		udp, err = net.ListenPacket("udp", net.JoinHostPort(ip, strconv.Itoa(port)))
		if err != nil {
			tcp.Close()
		}
		return err
	})
	if err != nil {
		return nil, nil, 0, fmt.Errorf("cannot listen for DNS: %w", err)
	}
	return udp, tcp, tcp.Addr().(*net.TCPAddr).Port, nil
}

// freePort finds a port that is free for TCP and UDP, for a component that binds it itself a moment later.
func freePort(ip string, port int) (int, error) {
	udp, tcp, port, err := listenDNS(ip, port, true)
	if err != nil {
		return 0, err
	}
	return port, errors.Join(udp.Close(), tcp.Close())
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
