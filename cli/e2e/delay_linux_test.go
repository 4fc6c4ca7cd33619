package e2e

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	farAddress = "10.78.0.1" // of the second of two namespaces that are far apart
	// farMTU is larger than the internet's: packets go through this process, and
	// their number must not be what limits the path.
	farMTU = "9000"
	// farPackets is how many packets are under way at most in one direction, as in a
	// router's queue: what is beyond is lost. 150 MB are some gigabytes a second.
	farPackets = 1 << 14
)

// far makes two namespaces whose packets take half of rtt to each other, in this
// process: the kernel's own delay (tc netem) is not everywhere. No packet is lost,
// or overtakes another.
func (l *lab) far(rtt time.Duration) (here, there string) {
	l.t.Helper()
	here, there = l.host("here"), l.host("there")
	a, b := l.tunnel(here, "10.78.0.2/24"), l.tunnel(there, farAddress+"/24")
	var carrying sync.WaitGroup
	carrying.Go(func() { carry(a, b, rtt/2) })
	carrying.Go(func() { carry(b, a, rtt/2) })
	l.t.Cleanup(func() {
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			l.t.Error(err)
		}
		carrying.Wait()
	})
	return here, there
}

// tunnel gives a namespace a network interface with an address, whose packets are
// read and written here.
func (l *lab) tunnel(ns, cidr string) *os.File {
	l.t.Helper()
	type opened struct {
		fd  int
		err error
	}
	result := make(chan opened)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread stays in the namespace, and ends
		fd, err := openTunnel(ns)
		result <- opened{fd, err}
	}()
	r := <-result
	if r.err != nil {
		l.t.Skipf("tunnels are not allowed here: %v", r.err)
	}
	l.run("ip", "-n", ns, "addr", "add", cidr, "dev", "tun0")
	l.run("ip", "-n", ns, "link", "set", "tun0", "mtu", farMTU, "txqueuelen", "10000", "up")
	return os.NewFile(uintptr(r.fd), "tun0 of "+ns)
}

// openTunnel moves the calling thread into a namespace, and opens a tunnel there.
func openTunnel(ns string) (fd int, err error) {
	f, err := os.Open("/var/run/netns/" + ns)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return 0, err
	}
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	request, err := unix.NewIfreq("tun0")
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

// carry moves packets from one tunnel to another until one is closed.
func carry(from, to *os.File, delay time.Duration) {
	type packet struct {
		due  time.Time
		data []byte
	}
	queue := make(chan packet, farPackets)
	var writing sync.WaitGroup
	writing.Go(func() {
		for p := range queue {
			time.Sleep(time.Until(p.due)) // it is the delay that is simulated
			to.Write(p.data)              // what can't be written is lost
		}
	})
	defer writing.Wait()
	defer close(queue)
	buf := make([]byte, 64*kib)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		select {
		case queue <- packet{time.Now().Add(delay), append([]byte(nil), buf[:n]...)}:
		default: // the queue is full: lost
		}
	}
}

// TestFarIsFar has an echo take as long as far says, and no longer.
func TestFarIsFar(t *testing.T) {
	l := newLab(t)
	here, _ := l.far(farTime)
	began := time.Now()
	l.in(here, "bash", "-c", "exec 3<>/dev/tcp/"+farAddress+"/1 || true") // refused after one round trip
	if took := time.Since(began); took < farTime || took > farTime+time.Second {
		t.Errorf("a connection is refused after %v, want %v and little more", took, farTime)
	}
}
