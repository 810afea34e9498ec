//go:build e2e

package peers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/internal/kit/cluster"
	"odx/internal/kit/harness"
	"odx/internal/kit/tokenclient"
)

const (
	streamMiB = 32
	// streamRate is that of the link while a fault comes, in bits a second.
	streamRate = 80e6
)

// pipe has odx send of one server write to odx receive of another, over a TCP connection
// between their hosts, as they would over ssh. A connection without an answer ends after
// some seconds. fault is called while the stream is under way, after it has moved some bytes.
func pipe(t *testing.T, from, to *cluster.Server, send, receive []string, fault func()) error {
	t.Helper()
	out, in := connect(t, from, to)
	sender, err := from.ODX(t.Context(), append([]string{"send"}, send...)...)
	harness.Must(t, err)
	receiver, err := to.ODX(t.Context(), append([]string{"receive"}, receive...)...)
	harness.Must(t, err)
	var said, heard bytes.Buffer
	sender.Stdout, sender.Stderr, receiver.Stdin, receiver.Stdout, receiver.Stderr = out, &said, in, &heard, &heard
	harness.Must(t, receiver.Start(), sender.Start(), out.Close(), in.Close())
	done := make(chan error, 1)
	go func() { done <- wait(sender, &said) }()
	received := make(chan error, 1)
	go func() { received <- wait(receiver, &heard) }()
	if fault != nil {
		fault()
	}
	return errors.Join(<-done, <-received)
}

func wait(cmd *exec.Cmd, said *bytes.Buffer) error {
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, said)
	}
	return nil
}

// connect returns both ends of a connection between two hosts.
func connect(t *testing.T, from, to *cluster.Server) (out, in *os.File) {
	t.Helper()
	var l net.Listener
	harness.Must(t, to.Host.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(to.Host.Address.String(), "0"))
		return err
	}))
	defer l.Close()
	var c net.Conn
	harness.Must(t, from.Host.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
		return err
	}))
	defer c.Close()
	s, err := l.Accept()
	harness.Must(t, err)
	defer s.Close()
	return file(t, c), file(t, s)
}

// file returns the socket of a connection, which ends when the other side does not answer
// for some seconds.
func file(t *testing.T, c net.Conn) *os.File {
	t.Helper()
	tcp := c.(*net.TCPConn)
	harness.Must(t, tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}))
	raw, err := tcp.SyscallConn()
	harness.Must(t, err, raw.Control(func(fd uintptr) { err = setUserTimeout(fd, 2*time.Second) }), err)
	f, err := tcp.File()
	harness.Must(t, err)
	return f
}

// history writes and unmaps at random places, and returns how many bytes that can have changed.
func (d *disk) history(rng *rand.Rand, steps int) (changed int64) {
	d.t.Helper()
	touched := make([]bool, len(d.want)/4096)
	for range steps {
		blocks := 1 + rng.IntN(256) // of 4 KiB
		at := rng.IntN(len(touched) - blocks)
		for i := at; i < at+blocks; i++ {
			touched[i] = true
		}
		off, length := at*4096, blocks*4096
		if rng.IntN(4) == 0 {
			d.unmap(off, length)
			continue
		}
		p := d.want[off : off+length]
		random(p, rng.Uint64())
		a, err := d.s.Write(bytes.NewReader(p), uint64(off/blockLength), uint64(length/blockLength), tokenclient.WriteOptions{})
		good(d.t, "write", a, err)
	}
	for _, t := range touched {
		if t {
			changed += 4096
		}
	}
	return changed
}

func (d *disk) unmap(off, length int) {
	d.t.Helper()
	list := make([]byte, 24)
	binary.BigEndian.PutUint16(list, 22)
	binary.BigEndian.PutUint16(list[2:], 16)
	binary.BigEndian.PutUint64(list[8:], uint64(off/blockLength))
	binary.BigEndian.PutUint32(list[16:], uint32(length/blockLength))
	a, err := d.s.Command([]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0}, list, 0)
	good(d.t, "unmap", a, err)
	clear(d.want[off : off+length])
}

// volumes returns the names of a server's volumes.
func volumes(t *testing.T, s *cluster.Server) (names []string) {
	t.Helper()
	var list []struct {
		Name string `json:"name"`
	}
	harness.Must(t, s.Admin(t.Context(), &list, "volume", "list"))
	for _, v := range list {
		names = append(names, v.Name)
	}
	return names
}

// compare has qemu-img compare a LUN of one server with one of another.
func compare(t *testing.T, a, b string) {
	t.Helper()
	harness.Run(t.Context(), t, harness.Program(t, "qemu-img", "qemu-utils"), "compare", "-f", "raw", "-F", "raw", a, b)
}

// copyLUN is the LUN that the received volume becomes.
const copyLUN = 7

func copyURL(s *cluster.Server) string {
	return fmt.Sprintf("iscsi://%s/%s/%d", s.Portal, s.IQN, copyLUN)
}

// TestSend: a volume is sent whole and then what changed, round after round. Only that
// crosses the wire, and qemu-img finds no difference.
func TestSend(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 2))
	c := unacquainted(t, streamMiB*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	a := newDisk(t, first, 0)
	a.fill(1, 0, streamMiB/2)
	base, changed := "", int64(streamMiB/2*mib)
	for round := range *rounds {
		name := fmt.Sprintf("s%d", round)
		harness.Must(t, first.Admin(t.Context(), nil, "volume", "snapshot", "vol0", name))
		send := []string{name}
		if base != "" {
			send = append(send, "-i", base)
		}
		n := crossed(t, second, func() { harness.Must(t, pipe(t, first, second, send, []string{"copy"}, nil)) })
		t.Logf("round %d: %d bytes crossed the wire for %d", round, n, changed)
		if n > changed*105/100+64<<10 { // 2 %, the headers of TCP and IP, and acknowledgements
			t.Errorf("round %d: %d bytes crossed the wire for %d", round, n, changed)
		}
		if round == 0 {
			harness.Must(t, second.Admin(t.Context(), nil, "lun", "add", second.IQN, "copy", "--lun", fmt.Sprint(copyLUN)))
		}
		compare(t, first.URL(0), copyURL(second))
		base, changed = name, a.history(rng, 10)
	}
	for _, s := range c.Servers {
		sound(t, s)
	}
}

// TestSend_Faults: a stream that a cut network or a killed server ends leaves nothing to be
// seen, and is continued.
func TestSend_Faults(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 3))
	c := unacquainted(t, streamMiB*mib, "a", "b")
	first, second := c.Servers[0], c.Servers[1]
	a := newDisk(t, first, 0)
	for i := range *faults {
		for kind, fault := range []func(){
			func() { cutFor(t, 4*time.Second, first.Host.Drop, first.Host.Pass) },
			func() { kill(t, first) },
			func() { kill(t, second) },
		} {
			what, name := fmt.Sprintf("round %d, fault %d", i, kind), fmt.Sprintf("s%d-%d", i, kind)
			a.again(first, 0)
			a.fill(rng.Uint64(), 0, streamMiB)
			harness.Must(t, first.Admin(t.Context(), nil, "volume", "snapshot", "vol0", name), first.Host.Rate(streamRate))
			target := "copy-" + name
			begun := counted(t, second)
			err := pipe(t, first, second, []string{name}, []string{target}, func() {
				harness.Must(t, awaitBytes(t, second, begun+int64(1+rng.IntN(streamMiB-8))*mib, nil))
				fault()
			})
			harness.Must(t, first.Host.Rate(0))
			if err == nil {
				t.Fatalf("%s: the stream has come whole in spite of it", what)
			}
			if slices.Contains(volumes(t, second), target) {
				t.Fatalf("%s: half of a volume is visible", what)
			}
			t.Logf("%s: %v", what, firstLine(err))
			send, receive := []string{name}, []string{target}
			if token := resumeToken(t, second, target); token != "" {
				send, receive = []string{"--resume", token}, []string{target, "--resume"}
			} else {
				t.Logf("%s: nothing to go on with", what)
			}
			harness.Must(t, pipe(t, first, second, send, receive, nil))
			harness.Must(t, second.Admin(t.Context(), nil, "lun", "add", second.IQN, target, "--lun", fmt.Sprint(copyLUN)))
			a.again(first, 0)
			compare(t, first.URL(0), copyURL(second))
			harness.Must(t, second.Admin(t.Context(), nil, "lun", "remove", second.IQN, fmt.Sprint(copyLUN)))
		}
	}
	for _, s := range c.Servers {
		sound(t, s)
	}
}

// cutFor has a network fail for a time.
func cutFor(t *testing.T, d time.Duration, on, off func() error) {
	t.Helper()
	harness.Must(t, on())
	time.Sleep(d) // the fault itself
	harness.Must(t, off())
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// resumeToken returns with what a stream that ended early is continued, or "".
func resumeToken(t *testing.T, s *cluster.Server, name string) string {
	t.Helper()
	var list []struct {
		Name  string `json:"name"`
		Token string `json:"token"`
	}
	harness.Must(t, s.Admin(t.Context(), &list, "receive", "--list"))
	for _, p := range list {
		if p.Name == name {
			return p.Token
		}
	}
	return ""
}
