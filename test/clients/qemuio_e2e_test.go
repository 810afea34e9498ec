//go:build e2e

package clients

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit"
	"odx/internal/kit/harness"
)

const (
	chunkLength = 64 << 10
	partChunks  = 128 // of a verifier
)

// qemuIO is a qemu-io with an open LUN. It takes a command when it has shown its prompt.
type qemuIO struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader // both outputs
	// close logs out, and waits for its end.
	close func()
}

// startQemuIO opens LUN 0 in one session of an initiator of that name.
func startQemuIO(ctx context.Context, t *testing.T, target *kit.Target, initiator string) *qemuIO {
	t.Helper()
	requireISCSI(t)
	q := &qemuIO{cmd: exec.CommandContext(ctx, harness.Program(t, "qemu-io", "qemu-utils"), "--image-opts", fmt.Sprintf(
		"driver=iscsi,transport=tcp,portal=%s,target=%s,lun=%d,initiator-name=%s", target.Portal, target.IQN, target.LUN(0), initiator))}
	q.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	q.in, err = q.cmd.StdinPipe()
	harness.Must(t, err)
	r, w, err := os.Pipe()
	harness.Must(t, err)
	q.cmd.Stdout, q.cmd.Stderr, q.out = w, w, bufio.NewReader(r)
	err = errors.Join(q.cmd.Start(), w.Close())
	harness.Must(t, err)
	q.close = sync.OnceFunc(func() {
		q.in.Close()
		if err := q.cmd.Wait(); err != nil {
			t.Errorf("qemu-io: %v", err)
		}
		r.Close()
	})
	t.Cleanup(q.close)
	_, err = q.answer()
	harness.Must(t, err)
	return q
}

// answer returns what comes before the prompt.
func (q *qemuIO) answer() (string, error) {
	const prompt = "qemu-io> "
	var all strings.Builder
	for {
		word, err := q.out.ReadString(' ')
		all.WriteString(word)
		if err != nil {
			return "", fmt.Errorf("%w after %q", err, all.String())
		}
		if said, ended := strings.CutSuffix(all.String(), prompt); ended {
			return said, nil
		}
	}
}

// do runs commands, and returns what they print. It takes them one by one, since qemu-io
// does not see a line that came together with another one.
func (q *qemuIO) do(commands ...string) (string, error) {
	var all strings.Builder
	for _, command := range commands {
		if _, err := io.WriteString(q.in, command+"\n"); err != nil {
			return "", err
		}
		said, err := q.answer()
		if err != nil {
			return "", err
		}
		all.WriteString(said)
	}
	return all.String(), nil
}

// part is what is known of a part of a LUN.
type part struct {
	first    int              // chunk of the LUN
	patterns [partChunks]byte // each byte of a chunk
	random   *rand.Rand
}

// partsOf returns n parts of a new LUN.
func partsOf(n int) []*part {
	var all []*part
	for i := range n {
		all = append(all, &part{first: i * partChunks, random: rand.New(rand.NewPCG(uint64(i), 21))})
	}
	return all
}

// verifier writes to a part of a LUN and compares what it reads with what was written last.
type verifier struct {
	*part
	q      *qemuIO
	depth  int           // commands outstanding
	rounds chan struct{} // takes a value after a round if another goroutine waits for it; closed at the end

	mu      sync.Mutex // guards longest
	longest time.Duration

	// Both are read after rounds is closed.
	err        error
	complaints []string // what qemu-io says although the commands succeed
}

// verify starts a verifier that goes on until ctx ends, and then compares the whole part.
func verify(ctx context.Context, q *qemuIO, p *part, depth int) *verifier {
	v := &verifier{part: p, q: q, depth: depth, rounds: make(chan struct{})}
	go func() {
		defer close(v.rounds)
		for ctx.Err() == nil && v.err == nil {
			v.err = errors.Join(v.write(), v.read(p.random.IntN(partChunks)))
			select {
			case v.rounds <- struct{}{}:
			default:
			}
		}
		for first := 0; first < partChunks && v.err == nil; first += depth {
			v.err = v.read(first)
		}
	}()
	return v
}

// write writes chunks that follow each other.
func (v *verifier) write() error {
	first, pattern := v.random.IntN(partChunks), byte(v.random.Uint32())
	for i := range v.depth {
		v.patterns[(first+i)%partChunks] = pattern + byte(i)
	}
	return v.at(first, "aio_write", "wrote")
}

// read reads chunks that follow each other, and compares.
func (v *verifier) read(first int) error { return v.at(first, "aio_read", "read") }

// at runs a command of qemu-io on each of depth chunks at the same time, with the pattern
// of each, and requires that each is done.
func (v *verifier) at(first int, command, done string) error {
	var commands []string
	for i := range v.depth {
		chunk := (first + i) % partChunks
		commands = append(commands, fmt.Sprintf("%s -P %d %d %d", command, v.patterns[chunk], (v.first+chunk)*chunkLength, chunkLength))
	}
	began := time.Now()
	said, err := v.q.do(append(commands, "aio_flush")...)
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	v.mu.Lock()
	v.longest = max(v.longest, time.Since(began))
	v.mu.Unlock()
	if err := v.understand(said, done); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}

// understand requires that qemu-io has said of depth commands that they are done, and keeps
// what else it says.
func (v *verifier) understand(said, done string) error {
	n, lines := 0, 0
	for line := range strings.Lines(said) {
		switch {
		case strings.HasPrefix(line, fmt.Sprintf("%s %d/%[2]d bytes", done, chunkLength)):
			n++
		case strings.HasPrefix(line, "qemu-io: "):
			v.complaints = append(v.complaints, line)
			continue
		}
		lines++
	}
	if n != v.depth || lines != 2*n { // the second one has the throughput
		return fmt.Errorf("of %d chunks: %.2000s", v.depth, said)
	}
	return nil
}

// next waits for the end of a round that begins after the call.
func (v *verifier) next(t *testing.T) {
	t.Helper()
	for range 2 {
		if _, works := <-v.rounds; !works {
			t.Fatalf("depth %d: %v", v.depth, v.err)
		}
	}
}

// pause returns the longest time that depth commands have taken since it was called last.
func (v *verifier) pause() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	longest := v.longest
	v.longest = 0
	return longest
}

// end waits for the end of a verifier whose context has ended. Each of the complaints has to
// contain what is allowed. It logs out.
func (v *verifier) end(t *testing.T, allowed string) {
	t.Helper()
	for range v.rounds {
	}
	v.q.close()
	if v.err != nil {
		t.Errorf("depth %d: %v", v.depth, v.err)
	}
	for _, line := range v.complaints {
		if allowed == "" || !strings.Contains(line, allowed) {
			t.Errorf("depth %d: %s", v.depth, line)
		}
	}
}
