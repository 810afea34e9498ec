//go:build e2e

package clients

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

const (
	mutations = 10000
	workers   = 4
	// answerLimit is how long the target may take to end a connection whose
	// other half the client has closed.
	answerLimit = 10 * time.Second
	// memoryLimit is how much the process may have grown at the end.
	memoryLimit = 256 << 20
)

// seedEnv names an environment variable with another seed than the usual.
const seedEnv = "ODX_MUTATE_SEED"

// TestMutatedPDUs throws 10,000 damaged PDUs at a portal, a part of them as
// the first thing on a connection and the rest after a login. The target must
// stay, must not grow, must end every connection, and must serve others.
func TestMutatedPDUs(t *testing.T) {
	seed := uint64(20261)
	if s := os.Getenv(seedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 0, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (%s chooses another)", seed, seedEnv)
	inq := harness.Program(t, "iscsi-inq", "libiscsi-bin")
	target := harness.Serve(t, kit.LUN{Size: 64 << 20})
	before, err := target.ResidentBytes()
	if err != nil {
		t.Fatal(err)
	}

	a := &attack{target: target}
	var done sync.WaitGroup
	for w := range workers {
		done.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(w)))
			for connection := 0; a.sent.Load() < mutations; connection++ {
				if err := a.connection(r); err != nil {
					a.fail(fmt.Errorf("worker %d, connection %d: %w", w, connection, err))
					return
				}
			}
		})
	}
	done.Wait()
	if a.err != nil {
		t.Error(a.err)
	}
	if !target.Running() {
		t.Fatal("the target has ended")
	}
	after, err := target.ResidentBytes()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d mutated PDUs over %d connections; resident memory %d MiB before, %d MiB after",
		a.sent.Load(), a.connections.Load(), before>>20, after>>20)
	if a.cut.Load() > a.connections.Load()/50 {
		t.Errorf("%d of %d connections ended while they logged in", a.cut.Load(), a.connections.Load())
	}
	if after-before > memoryLimit {
		t.Errorf("resident memory grew from %d to %d MiB", before>>20, after>>20)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	harness.Run(ctx, t, inq, target.URL(0))
}

type attack struct {
	target      *kit.Target
	sent        atomic.Int64
	connections atomic.Int64
	cut         atomic.Int64 // logins that another connection's TARGET COLD RESET ended
	mu          sync.Mutex   // guards err
	err         error
}

func (a *attack) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = errors.Join(a.err, err)
}

// connection sends a number of PDUs, some of them intact so that the session
// gets somewhere, until it has sent enough or the target has had enough.
func (a *attack) connection(r *rand.Rand) error {
	a.connections.Add(1)
	c, err := net.DialTimeout("tcp", a.target.Portal, answerLimit)
	if err != nil {
		return err
	}
	conn := c.(*net.TCPConn)
	defer conn.Close()
	// What a target that waits for more does not read must not hold us up.
	if err := conn.SetWriteDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	s := &session{rand: r, cmdSN: 1, lun: byte(a.target.LUN(0))}
	login := loginPDU(r.Uint32(), a.target.IQN)
	if r.IntN(4) == 0 {
		return a.finish(conn, a.send(conn, damage(r, login)))
	}
	err = fullFeature(conn, login)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		a.cut.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	// The answers have to be read, or the target would wait for us.
	answers := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		answers <- err
	}()
	for range 1 + r.IntN(12) {
		b := s.next()
		if r.IntN(3) == 0 {
			_, err = conn.Write(b)
		} else {
			err = a.send(conn, damage(r, b))
		}
		if err != nil {
			break
		}
	}
	closeWrite(conn, err)
	return ended(conn, func() error { return <-answers })
}

func (a *attack) send(conn net.Conn, b []byte) error {
	a.sent.Add(1)
	_, err := conn.Write(b)
	return err
}

// finish ends a connection from which nothing was read yet.
func (a *attack) finish(conn *net.TCPConn, err error) error {
	closeWrite(conn, err)
	return ended(conn, func() error {
		_, err := io.Copy(io.Discard, conn)
		return err
	})
}

func closeWrite(conn *net.TCPConn, err error) {
	if err == nil {
		conn.CloseWrite() // an error here is one of read, too
	}
}

// ended waits until the target has closed the connection, in whatever way.
func ended(conn net.Conn, drain func() error) error {
	if err := conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if err := drain(); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the target did not end the connection in %v", answerLimit)
	} else if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	return nil
}

// fullFeature logs in and requires success.
func fullFeature(conn net.Conn, login []byte) error {
	if _, err := conn.Write(login); err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	var h [headerLength]byte
	if _, err := io.ReadFull(conn, h[:]); err != nil {
		return fmt.Errorf("login response: %w", err)
	}
	n := int64(binary.BigEndian.Uint32(h[4:]) & 0xffffff)
	if _, err := io.CopyN(io.Discard, conn, (n+3)&^3); err != nil {
		return fmt.Errorf("login response: %w", err)
	}
	if h[0]&0x3f != 0x23 || h[1]&0x83 != 0x83 || h[36] != 0 {
		return fmt.Errorf("no full feature phase: % x", h)
	}
	return conn.SetReadDeadline(time.Time{})
}

// TestStrangersGetNoMemory announces as much data as a PDU can hold, on many
// connections that have not logged in, and sends a part of it.
func TestStrangersGetNoMemory(t *testing.T) {
	const (
		connections = 200
		announced   = 1<<24 - 1
		limit       = connections * 128 << 10
	)
	inq := harness.Program(t, "iscsi-inq", "libiscsi-bin")
	target := harness.Serve(t, kit.LUN{Size: 64 << 20})
	before, err := target.ResidentBytes()
	if err != nil {
		t.Fatal(err)
	}
	b := append(loginPDU(1, target.IQN), make([]byte, 32<<10)...)
	b[5], b[6], b[7] = announced>>16, announced>>8&0xff, announced&0xff
	var strangers []net.Conn
	for range connections {
		conn, err := net.DialTimeout("tcp", target.Portal, answerLimit)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write(b) // the target may have closed it already
		strangers = append(strangers, conn)
	}
	// While they are there, they take the places of those who log in.
	for _, conn := range strangers {
		conn.SetReadDeadline(time.Now().Add(answerLimit))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("the target does not close a connection that announces too much")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	harness.Run(ctx, t, inq, target.URL(0))
	after, err := target.ResidentBytes()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("resident memory %d MiB before, %d MiB after %d connections", before>>20, after>>20, connections)
	if after-before > limit {
		t.Errorf("%d connections that have not logged in made it %d MiB larger", connections, (after-before)>>20)
	}
}
