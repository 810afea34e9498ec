package address

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"odx/conf"
	"odx/internal/kit/harness"
	"odx/internal/kit/must"
	"odx/internal/kit/netns"
)

// ownerEnv has, for a process that is to own addresses, what it owns.
const ownerEnv = "ODX_TEST_ADDRESS_OWNER"

// ownership says what a process of a test owns.
type ownership struct {
	Name      string
	Addresses []conf.OwnerAddress
	Gone      []Connection
}

const port = 3260

func TestMain(m *testing.M) {
	if how := os.Getenv(ownerEnv); how != "" {
		if err := own(how); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// own has addresses until standard input ends. It writes its name to each client that connects.
func own(how string) error {
	var o ownership
	if err := json.Unmarshal([]byte(how), &o); err != nil {
		return err
	}
	h, err := Hold(o.Addresses, owner{}, logrus.NewEntry(logrus.StandardLogger()))
	if err != nil {
		return err
	}
	for _, a := range o.Addresses {
		l, err := net.Listen("tcp", netip.AddrPortFrom(a.Prefix.Addr(), port).String())
		if err != nil {
			return errors.Join(err, h.Close())
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, o.Name) // and it stays open until the process ends
			}
		}()
	}
	h.Announce(o.Gone)
	fmt.Println("owns")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, h.Close())
}

// process is a process that owns addresses on a host.
type process struct {
	cmd *exec.Cmd
	in  io.Closer
}

func start(t *testing.T, h *netns.Host, list []conf.OwnerAddress, gone []Connection) *process {
	t.Helper()
	how, err := json.Marshal(ownership{h.Name, list, gone})
	must.Succeed(t, err)
	p := &process{cmd: h.Command(context.Background(), os.Args[0])}
	p.cmd.Env = append(os.Environ(), ownerEnv+"="+string(how))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	must.Succeed(t, err)
	p.in, err = p.cmd.StdinPipe()
	must.Succeed(t, errors.Join(err, p.cmd.Start()))
	t.Cleanup(p.kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "owns\n" {
		t.Fatalf("the owner on %s prints %q, %v", h.Name, line, err)
	}
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // killed
}

// dial connects from a host, and reads the name of the server.
func dial(t *testing.T, from *netns.Host, to netip.Addr) (c net.Conn, server string) {
	t.Helper()
	must.Succeed(t, from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, port).String(), 10*time.Second)
		return err
	}))
	t.Cleanup(func() { c.Close() })
	must.Succeed(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	server, err := bufio.NewReader(c).ReadString('\n')
	must.Succeed(t, err)
	return c, strings.TrimSpace(server)
}

// has reports whether a host has an address.
func has(t *testing.T, h *netns.Host, a netip.Addr) bool {
	t.Helper()
	out, err := h.Command(t.Context(), "ip", "-o", "addr", "show").Output()
	must.Succeed(t, err)
	return strings.Contains(string(out), " "+a.String()+"/")
}

// An address moves to another host while the one that has it is cut off: a client that waits
// for an answer finds out that its connection is gone, and reaches the other host. The first
// host has the address until it runs a process again.
func TestHeld_Move(t *testing.T) {
	if err := netns.Check(); err != nil {
		harness.Missing(t, err.Error())
	}
	n, err := netns.New("a", "b", "client")
	must.Succeed(t, err)
	t.Cleanup(func() { must.Succeed(t, n.Close()) })
	a, b, client := n.Host("a"), n.Host("b"), n.Host("client")
	subnet := client.Address.As4()
	subnet[3] = 200
	list := []conf.OwnerAddress{{Prefix: netip.PrefixFrom(netip.AddrFrom4(subnet), 24), Interface: "eth0"}}
	if out, err := client.Command(t.Context(), "ip", "addr", "add", "fd00::3/64", "dev", "eth0", "nodad").CombinedOutput(); err == nil {
		list = append(list, conf.OwnerAddress{Prefix: netip.MustParsePrefix("fd00::c8/64"), Interface: "eth0"})
	} else {
		t.Logf("without IPv6: %s", out)
	}

	first := start(t, a, list, nil)
	var open []net.Conn
	var gone []Connection
	for _, o := range list {
		c, server := dial(t, client, o.Prefix.Addr())
		if server != "a" {
			t.Fatalf("%s is that of %s", o.Prefix.Addr(), server)
		}
		open = append(open, c)
		gone = append(gone, Connection{Local: netip.MustParseAddrPort(c.RemoteAddr().String()), Remote: netip.MustParseAddrPort(c.LocalAddr().String())})
	}
	must.Succeed(t, a.Drop())
	moved := time.Now()
	second := start(t, b, list, gone)
	for i, o := range list {
		must.Succeed(t, open[i].SetReadDeadline(moved.Add(10*time.Second)))
		if _, err := open[i].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection to %s: %v", o.Prefix.Addr(), err)
		}
		t.Logf("%s: connection reset after %v", o.Prefix.Addr(), time.Since(moved).Round(time.Millisecond))
		if _, server := dial(t, client, o.Prefix.Addr()); server != "b" {
			t.Errorf("%s is that of %s", o.Prefix.Addr(), server)
		}
	}

	first.kill()
	must.Succeed(t, a.Pass())
	for _, o := range list {
		if !has(t, a, o.Prefix.Addr()) {
			t.Errorf("the host of a process that was killed has no %s", o.Prefix.Addr())
		}
	}
	must.Succeed(t, a.Do(func() error { return Remove(list) }))
	must.Succeed(t, second.in.Close(), second.cmd.Wait())
	for _, h := range []*netns.Host{a, b} {
		for _, o := range list {
			if has(t, h, o.Prefix.Addr()) {
				t.Errorf("host %s has %s", h.Name, o.Prefix.Addr())
			}
		}
	}
}

// An address of the machine's own is neither taken nor removed.
func TestRemove_OwnAddress(t *testing.T) {
	if err := netns.Check(); err != nil {
		harness.Missing(t, err.Error())
	}
	n, err := netns.New("a")
	must.Succeed(t, err)
	t.Cleanup(func() { must.Succeed(t, n.Close()) })
	a := n.Host("a")
	list := []conf.OwnerAddress{{Prefix: netip.PrefixFrom(a.Address, 24), Interface: "eth0"}}
	for what, do := range map[string]func() error{
		"Remove": func() error { return Remove(list) },
		"Hold": func() error {
			_, err := Hold(list, owner{}, logrus.NewEntry(logrus.StandardLogger()))
			return err
		},
	} {
		if err := a.Do(do); err == nil || !strings.Contains(err.Error(), "odx has not added it") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !has(t, a, a.Address) {
		t.Errorf("%s is gone", a.Address)
	}
	list[0].Interface = "eth7"
	if err := a.Do(func() error { return Check(list) }); err == nil || !strings.Contains(err.Error(), "eth7") {
		t.Errorf("check of an interface that is not there: %v", err)
	}
}

// owner owns a store, unless it says why not.
type owner struct {
	why  error
	lost chan struct{}
}

func (o owner) Owned() error          { return o.why }
func (o owner) Lost() <-chan struct{} { return o.lost }

// TestHeld_NotOwned: a process that was stopped does not announce the addresses when it goes on,
// although it was not woken yet for the loss of the store. It removes them.
func TestHeld_NotOwned(t *testing.T) {
	lo := []conf.OwnerAddress{{Prefix: netip.MustParsePrefix("198.51.100.78/32"), Interface: "lo"}}
	if err := Check(lo); err != nil {
		harness.Missing(t, err.Error())
	}
	h, err := Hold(lo, owner{why: errors.New("lost")}, logrus.NewEntry(logrus.StandardLogger()))
	must.Succeed(t, err)
	h.Announce(nil)
	h.keeping.Wait()
	if _, there, err := find(lo[0]); err != nil || there != nil {
		t.Errorf("the address is there: %v, %v", there, err)
	}
	must.Succeed(t, h.Close())
}

// Hold removes the addresses when the store is lost.
func TestHeld_Lost(t *testing.T) {
	lo := []conf.OwnerAddress{{Prefix: netip.MustParsePrefix("198.51.100.77/32"), Interface: "lo"}}
	if err := Check(lo); err != nil {
		harness.Missing(t, err.Error())
	}
	lost := make(chan struct{})
	h, err := Hold(lo, owner{lost: lost}, logrus.NewEntry(logrus.StandardLogger()))
	must.Succeed(t, err)
	_, there, err := find(lo[0])
	if err != nil || there == nil {
		t.Errorf("the address was not added: %v", err)
	}
	close(lost)
	h.keeping.Wait()
	if _, there, err = find(lo[0]); err != nil || there != nil {
		t.Errorf("the address is there after the loss: %v, %v", there, err)
	}
	must.Succeed(t, h.Close())
}

// The checksum of a segment is right: with it, the sum of all words is 0.
func TestAck(t *testing.T) {
	for _, c := range []Connection{
		{netip.MustParseAddrPort("192.0.2.10:3260"), netip.MustParseAddrPort("192.0.2.99:54321")},
		{netip.MustParseAddrPort("[2001:db8::10]:3260"), netip.MustParseAddrPort("[2001:db8::ffff]:54321")},
	} {
		b := ack(c)
		if len(b) != 20 || binary.BigEndian.Uint16(b) != 3260 || checksum(c, b) != 0 {
			t.Errorf("%v: % x, checksum %#x", c, b, checksum(c, b))
		}
	}
}
