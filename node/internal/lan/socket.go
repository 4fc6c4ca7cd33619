package lan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// family is IPv4 or IPv6: its group, and the two sockets.
type family struct {
	address    netip.Addr
	group, own socket
	port       uint16                         // of own
	open       func(port int) (socket, error) // another of its own
}

func (f *family) v6() bool { return f.address.Is6() }

// socket is a UDP socket that tells and takes the interface of each datagram.
type socket interface {
	read(buf []byte) (packet, error)
	// write sends to an address; to the group on link, which is nil otherwise.
	write(data []byte, to netip.AddrPort, link *Link) error
	join(*net.Interface) error
	leave(*net.Interface) error
	interrupt() // makes reads that wait and later ones return an error
	close() error
}

// packet is one datagram as a socket got it.
type packet struct {
	n       int
	src     netip.AddrPort
	dst     netip.Addr // invalid where the system does not tell
	ifIndex int        // 0 where the system does not tell
}

func openFamily4(port int) (*family, error) {
	return openFamily("udp4", group4, port, func(c *net.UDPConn) (socket, error) { return newSocket4(c) })
}

func openFamily6(port int) (*family, error) {
	return openFamily("udp6", group6, port, func(c *net.UDPConn) (socket, error) { return newSocket6(c) })
}

func openFamily(network string, group netip.Addr, port int, wrap func(*net.UDPConn) (socket, error)) (*family, error) {
	shared, err := listen(network, port, true)
	if err != nil {
		return nil, err
	}
	own, err := listenOwn(network, port)
	if err != nil {
		return nil, errors.Join(err, shared.Close())
	}
	f := &family{address: group, port: addrPort(own.LocalAddr()).Port(), open: func(port int) (socket, error) {
		c, err := listen(network, port, false)
		if err != nil {
			return nil, err
		}
		return wrap(c)
	}}
	var err2 error
	f.group, err = wrap(shared)
	f.own, err2 = wrap(own)
	if err := errors.Join(err, err2); err != nil {
		return nil, errors.Join(err, shared.Close(), own.Close())
	}
	return f, nil
}

// listenOwn opens a socket of this process's own, on one of the ports after
// the group's, or on any when they are taken.
func listenOwn(network string, port int) (*net.UDPConn, error) {
	for p := port + 1; p <= port+ownPorts && p <= 65535; p++ {
		if c, err := listen(network, p, false); err == nil {
			return c, nil
		}
	}
	return listen(network, 0, false)
}

// listen opens a UDP socket on all addresses of a family.
func listen(network string, port int, shared bool) (*net.UDPConn, error) {
	var c net.ListenConfig
	if shared {
		c.Control = sharePort
	}
	// Nothing to wait for: it is a name that resolves to itself.
	p, err := c.ListenPacket(context.Background(), network, ":"+strconv.Itoa(port))
	if err != nil {
		return nil, fmt.Errorf("open UDP port %d: %w", port, err)
	}
	u := p.(*net.UDPConn)
	u.SetReadBuffer(socketBuffer) // what the system does not give, it does not
	return u, nil
}

// interruptConn makes pending and later reads end.
func interruptConn(c *net.UDPConn) { c.SetReadDeadline(time.Unix(1, 0)) }

// controls reports whether the system tells and takes interfaces with each
// datagram. On Windows x/net can't.
const controls = runtime.GOOS != "windows"

type socket4 struct {
	conn *net.UDPConn
	p    *ipv4.PacketConn
	mu   sync.Mutex // where the interface is a setting of the socket: from setting it to sending
}

func newSocket4(c *net.UDPConn) (*socket4, error) {
	s := &socket4{conn: c, p: ipv4.NewPacketConn(c)}
	err := errors.Join(s.p.SetMulticastTTL(1), s.p.SetMulticastLoopback(true))
	if controls {
		err = errors.Join(err, s.p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true))
	}
	return s, err
}

func (s *socket4) read(buf []byte) (packet, error) {
	n, cm, src, err := s.p.ReadFrom(buf)
	if err != nil {
		return packet{}, err
	}
	p := packet{n: n, src: addrPort(src)}
	if cm != nil {
		p.ifIndex = cm.IfIndex
		dst, _ := netip.AddrFromSlice(cm.Dst)
		p.dst = dst.Unmap()
	}
	return p, nil
}

func (s *socket4) write(data []byte, to netip.AddrPort, link *Link) error {
	var cm *ipv4.ControlMessage
	if link != nil {
		if controls {
			// Without a source the kernel sends from 0.0.0.0 on loopback.
			src := link.source(false)
			cm = &ipv4.ControlMessage{IfIndex: link.Index, Src: src.AsSlice()}
		} else {
			s.mu.Lock()
			defer s.mu.Unlock()
			if err := s.p.SetMulticastInterface(&net.Interface{Index: link.Index, Name: link.Name}); err != nil {
				return err
			}
		}
	}
	_, err := s.p.WriteTo(data, cm, net.UDPAddrFromAddrPort(to))
	return err
}

func (s *socket4) join(i *net.Interface) error {
	return s.p.JoinGroup(i, &net.UDPAddr{IP: group4.AsSlice()})
}

func (s *socket4) leave(i *net.Interface) error {
	return s.p.LeaveGroup(i, &net.UDPAddr{IP: group4.AsSlice()})
}

func (s *socket4) interrupt()   { interruptConn(s.conn) }
func (s *socket4) close() error { return s.conn.Close() }

type socket6 struct {
	conn *net.UDPConn
	p    *ipv6.PacketConn
	mu   sync.Mutex // as socket4's
}

func newSocket6(c *net.UDPConn) (*socket6, error) {
	s := &socket6{conn: c, p: ipv6.NewPacketConn(c)}
	err := errors.Join(s.p.SetMulticastHopLimit(1), s.p.SetMulticastLoopback(true))
	if controls {
		err = errors.Join(err, s.p.SetControlMessage(ipv6.FlagInterface|ipv6.FlagDst, true))
	}
	return s, err
}

func (s *socket6) read(buf []byte) (packet, error) {
	n, cm, src, err := s.p.ReadFrom(buf)
	if err != nil {
		return packet{}, err
	}
	p := packet{n: n, src: addrPort(src)}
	if cm != nil {
		p.ifIndex = cm.IfIndex
		p.dst, _ = netip.AddrFromSlice(cm.Dst)
	}
	return p, nil
}

func (s *socket6) write(data []byte, to netip.AddrPort, link *Link) error {
	var cm *ipv6.ControlMessage
	if link != nil {
		if controls {
			cm = &ipv6.ControlMessage{IfIndex: link.Index}
		} else {
			s.mu.Lock()
			defer s.mu.Unlock()
			if err := s.p.SetMulticastInterface(&net.Interface{Index: link.Index, Name: link.Name}); err != nil {
				return err
			}
		}
	}
	_, err := s.p.WriteTo(data, cm, net.UDPAddrFromAddrPort(to))
	return err
}

func (s *socket6) join(i *net.Interface) error {
	return s.p.JoinGroup(i, &net.UDPAddr{IP: group6.AsSlice()})
}

func (s *socket6) leave(i *net.Interface) error {
	return s.p.LeaveGroup(i, &net.UDPAddr{IP: group6.AsSlice()})
}

func (s *socket6) interrupt()   { interruptConn(s.conn) }
func (s *socket6) close() error { return s.conn.Close() }

func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := u.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
