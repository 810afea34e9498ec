// Package successor starts the program that replaces this process, and passes to it what this
// process has open: files by name, and a state in bytes. Until the successor reports that it
// serves, this process keeps everything and can continue without it.
//
//	this process                            successor
//	Start ── program, configuration ──────► Connect
//	      ◄── ready, or why not ─────────── Ready
//	Pass  ── files and state ─────────────► Receive
//	      ◄── serving ───────────────────── Serving
//
// Both sides use a socket pair, one packet at a time in each direction. Long data is in files
// in memory.
package successor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"odx/internal/localsocket"
)

// version is that of the packets.
const version = 1

const (
	// maxBytes bounds the configuration, and the state.
	maxBytes = 256 << 20
	// maxFiles bounds the files that are passed.
	maxFiles = 1 << 17
)

// Kinds of packets.
const (
	kindConfiguration = "configuration"
	kindReady         = "ready"
	kindRefused       = "refused"
	kindFile          = "file"
	kindState         = "state"
	kindServing       = "serving"
)

// packet is what both sides send. Its fields are part of the protocol between versions of
// odx.
type packet struct {
	Version int    `json:"version"`
	Kind    string `json:"kind"`
	// Name is that of a file, or the path of the configuration.
	Name string `json:"name,omitempty"`
	// State is the version of the state that is to be passed.
	State int `json:"state,omitempty"`
	// Reason is why the successor cannot take over.
	Reason string `json:"reason,omitempty"`
}

// Plan is what a program checks before it says that it can take over.
type Plan struct {
	// Path is that of the configuration, Configuration its text.
	Path          string
	Configuration []byte
	// StateVersion is that of the state in the Estate.
	StateVersion int
}

// ErrServed: the successor had begun to serve when it ended.
var ErrServed = errors.New("the other process had begun to serve")

// File is an open file that is passed, with the caller's name for it.
type File struct {
	Name string
	File *os.File
}

// Estate is what a process passes on. The files belong to the holder of the Estate.
type Estate struct {
	State []byte
	Files []File
}

// Close closes the files.
func (e *Estate) Close() error {
	var errs []error
	for _, f := range e.Files {
		errs = append(errs, f.File.Close())
	}
	e.Files = nil
	return errors.Join(errs...)
}

// parsePacket reads a packet.
func parsePacket(data []byte) (*packet, error) {
	var p packet
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("packet of a handover: %w", err)
	}
	if p.Version != version {
		return nil, fmt.Errorf("the other program has version %d of the protocol of handovers, not %d", p.Version, version)
	}
	return &p, nil
}

// link is the connection to the other process.
type link struct{ conn *net.UnixConn }

// send sends a packet, with a file unless it is nil.
func (l link) send(p packet, file *os.File) error {
	p.Version = version
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if file == nil {
		return localsocket.Send(l.conn, data, -1)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = localsocket.Send(l.conn, data, int(fd)) })
	return errors.Join(err, sent)
}

// receive receives a packet.
func (l link) receive() (*packet, *os.File, error) {
	data, file, err := localsocket.Receive(l.conn)
	if err != nil {
		return nil, nil, err
	}
	p, err := parsePacket(data)
	if err != nil && file != nil {
		file.Close()
	}
	return p, file, err
}

// expect receives a packet of a kind, with a file where that is needed.
func (l link) expect(kind string) (*packet, error) {
	p, file, err := l.receive()
	if err != nil {
		return nil, err
	}
	if file != nil {
		file.Close()
	}
	switch p.Kind {
	case kind:
		return p, nil
	case kindRefused:
		return nil, errors.New(p.Reason)
	}
	return nil, fmt.Errorf("a packet %q, %q was expected", p.Kind, kind)
}

// sendBytes sends bytes of any length.
func (l link) sendBytes(p packet, data []byte) error {
	f, err := memoryFile(data)
	if err != nil {
		return err
	}
	return errors.Join(l.send(p, f), f.Close())
}

// memoryFile returns a file in memory with data.
func memoryFile(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("odx", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readMemory returns what a memoryFile has, and closes it.
func readMemory(f *os.File) ([]byte, error) {
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxBytes+1))
	if err == nil && len(data) > maxBytes {
		err = fmt.Errorf("more than %d bytes", maxBytes)
	}
	return data, err
}

// deadline bounds what is sent and received next.
func (l link) deadline(d time.Duration) error { return l.conn.SetDeadline(time.Now().Add(d)) }
