// Package netns makes small networks for tests: hosts with a network of their own (network
// namespaces of Linux), joined by a bridge. A link can be slow, lose packets without a
// word, or be down, and its bytes are counted. Each host also has a link to the test
// itself, which nothing of that concerns: clients and the test reach it there.
//
// Networks are made by ip(8), shaped by tc(8), and drop by nft(8), all of which need root.
// Names begin with the number and the start time of the process that made them: a network
// whose process was killed is removed when the next one is made.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Packages are the Debian packages with the programs.
const Packages = "iproute2, nftables"

const (
	prefix = "odxtest-" // of the names of all network namespaces

	wire    = "eth0"    // of a host: to the other ones
	control = "control" // of a host: to the test
)

// Net is a network of hosts.
type Net struct {
	name   string // that of its namespaces without their ends
	bridge string // the namespace with the bridge
	hosts  []*Host
}

// Host is a machine of a Net, as far as its network is concerned.
type Host struct {
	Name string
	// Address is its address for the other hosts, Control the one for the test.
	Address, Control netip.Addr

	net  *Net
	ns   string // its namespace
	port string // the end of its link at the bridge
}

// Check returns why networks cannot be made on this machine, or nil.
func Check() error {
	if os.Getuid() != 0 {
		return errors.New("only root can make network namespaces")
	}
	for _, program := range []string{"ip", "tc", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed (Debian packages %s)", program, Packages)
		}
	}
	name := fmt.Sprintf("%s%s-check", prefix, self())
	if err := run("ip", "netns", "add", name); err != nil {
		return fmt.Errorf("no network namespace can be made here: %w", err)
	}
	return run("ip", "netns", "del", name)
}

// count numbers the networks of this process.
var count atomic.Uint32

// New makes a network of at most 200 hosts with these names.
func New(names ...string) (n *Net, err error) {
	if err := Sweep(); err != nil {
		return nil, err
	}
	number := count.Add(1)
	n = &Net{name: fmt.Sprintf("%s%s-%d", prefix, self(), number)}
	n.bridge = n.name + "-bridge"
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := batch(
		"ip netns add "+n.bridge,
		"ip -n "+n.bridge+" link add br0 type bridge",
		"ip -n "+n.bridge+" link set br0 up",
	); err != nil {
		return nil, err
	}
	for i, name := range names {
		h := &Host{Name: name, Address: netip.AddrFrom4([4]byte{10, 213, byte(number), byte(i + 1)}), net: n, ns: n.name + "-" + name, port: fmt.Sprintf("port%d", i)}
		n.hosts = append(n.hosts, h)
		if err := h.join(); err != nil {
			return nil, fmt.Errorf("host %s: %w", name, err)
		}
	}
	return n, nil
}

// join makes the namespace of a host and its two links.
func (h *Host) join() error {
	test, end, err := freeControl()
	if err != nil {
		return err
	}
	h.Control = end
	outside := fmt.Sprintf("odx%d.%d", os.Getpid()%1e6, outsides.Add(1)%1e4) // at most 15 bytes
	if err := batch(
		"ip netns add "+h.ns,
		"ip -n "+h.ns+" link set lo up",
		fmt.Sprintf("ip -n %s link add %s type veth peer name %s netns %s", h.ns, wire, h.port, h.net.bridge),
		fmt.Sprintf("ip -n %s link set %s master br0 up", h.net.bridge, h.port),
		fmt.Sprintf("ip -n %s addr add %s/24 dev %s", h.ns, h.Address, wire),
		fmt.Sprintf("ip -n %s link set %s up", h.ns, wire),
		fmt.Sprintf("ip link add %s type veth peer name %s netns %s", outside, control, h.ns),
		fmt.Sprintf("ip addr add %s/31 dev %s", test, outside),
		fmt.Sprintf("ip link set %s up", outside),
		fmt.Sprintf("ip -n %s addr add %s/31 dev %s", h.ns, end, control),
		fmt.Sprintf("ip -n %s link set %s up", h.ns, control),
	); err != nil {
		return err
	}
	return errors.Join(ready("ip", "-o", "link", "show", "dev", outside), ready("ip", "-n", h.ns, "-o", "link", "show", "dev", control),
		ready("ip", "-n", h.net.bridge, "-o", "link", "show", "dev", h.port), ready("ip", "-n", h.ns, "-o", "link", "show", "dev", wire))
}

// readyLimit is how long a link may take until it carries packets.
const readyLimit = 5 * time.Second

// ready waits until a link carries packets: the kernel begins that shortly after it is up,
// and drops the first ones without.
func ready(program string, args ...string) error {
	end := time.Now().Add(readyLimit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := exec.Command(program, args...).CombinedOutput()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		case strings.Contains(string(out), " state UP "):
			return nil
		case time.Now().After(end):
			return fmt.Errorf("not up after %v: %s", readyLimit, out)
		}
		<-tick.C
	}
}

var outsides atomic.Uint32 // numbers the ends of control links

// controls guards the choice of addresses within this process.
var controls struct {
	sync.Mutex
	next uint32
}

// freeControl returns a pair of addresses for a control link that no interface of this
// machine has. Another process may look at the same time: each begins elsewhere.
func freeControl() (test, host netip.Addr, err error) {
	used := map[netip.Addr]bool{}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return test, host, err
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			used[p.Addr()] = true
		}
	}
	controls.Lock()
	defer controls.Unlock()
	const pairs = 1 << 15 // of 10.214.0.0/16
	for range pairs {
		n := (uint32(os.Getpid())*64 + controls.next) % pairs * 2
		controls.next++
		test = netip.AddrFrom4([4]byte{10, 214, byte(n >> 8), byte(n)})
		if host = test.Next(); !used[test] && !used[host] {
			return test, host, nil
		}
	}
	return test, host, errors.New("10.214.0.0/16 has no free pair of addresses")
}

// Host returns the host with a name, which must be one of those that New got.
func (n *Net) Host(name string) *Host {
	for _, h := range n.hosts {
		if h.Name == name {
			return h
		}
	}
	panic("no host " + name)
}

// Close removes the network. What runs in it goes on without one.
func (n *Net) Close() error {
	var failed []error
	for _, h := range n.hosts {
		failed = append(failed, remove(h.ns))
	}
	return errors.Join(append(failed, remove(n.bridge))...)
}

// Sweep removes the networks of processes that have ended without Close.
func Sweep() error {
	names, err := os.ReadDir("/var/run/netns")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var failed []error
	for _, e := range names {
		owner, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok {
			continue
		}
		owner, _, _ = strings.Cut(owner, "-")
		pid, _, _ := strings.Cut(owner, ".")
		if started, err := process(pid); err != nil || started != owner {
			failed = append(failed, remove(e.Name()))
		}
	}
	return errors.Join(append(failed, err)...)
}

// remove removes a namespace and the links that end in it. Without a name it lives as
// long as a process in it; its links go at once.
func remove(ns string) error {
	if _, err := os.Stat("/var/run/netns/" + ns); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, link := range []string{wire, control} {
		_ = run("ip", "-n", ns, "link", "del", link) // the bridge has neither
	}
	if err := run("ip", "netns", "del", ns); err != nil {
		if _, stat := os.Stat("/var/run/netns/" + ns); !errors.Is(stat, os.ErrNotExist) {
			return err
		} // else another process swept it
	}
	return nil
}

// self identifies this process, also where its number is used again.
func self() string {
	id, err := process("self")
	if err != nil {
		return strconv.Itoa(os.Getpid()) // without /proc
	}
	return id
}

// process returns the number and the start time of a process.
func process(pid string) (string, error) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return "", err
	}
	number, _, _ := strings.Cut(string(stat), " ")
	// The command's name, in parentheses, may have any bytes. The start is field 22.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%s/stat has %d fields", pid, len(fields))
	}
	return number + "." + fields[19], nil
}

// Args returns the command line that runs a program on the host.
func (h *Host) Args(program string, args ...string) []string {
	return append([]string{"ip", "netns", "exec", h.ns, program}, args...)
}

// Command is exec.CommandContext for a program on the host.
func (h *Host) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	line := h.Args(program, args...)
	return exec.CommandContext(ctx, line[0], line[1:]...)
}

// Do calls fn in the network of the host: sockets that fn itself makes are there, also
// when it has returned; those of goroutines that it starts are not.
func (h *Host) Do(fn func() error) error {
	there, err := os.Open("/var/run/netns/" + h.ns)
	if err != nil {
		return err
	}
	defer there.Close()
	runtime.LockOSThread()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer here.Close()
	defer func() {
		// The thread must not end instead: what it has started is to end with it (package
		// kit), and it runs other goroutines, which must not be on the host.
		if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
			panic("a thread cannot leave the host: " + err.Error())
		}
		runtime.UnlockOSThread()
	}()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("setns", err)
	}
	return fn()
}

// batch runs command lines without blanks in their arguments, until one fails.
func batch(lines ...string) error {
	for _, line := range lines {
		f := strings.Fields(line)
		if err := run(f[0], f[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func run(program string, args ...string) error {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
