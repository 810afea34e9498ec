// Package nbd is a disk for a virtual machine whose power will be cut. qemu
// reaches it by the NBD protocol. As on a disk with a volatile write cache, data
// is durable once the machine has flushed it, and a power cut keeps any of the
// sectors written since: which ones, a random source decides.
package nbd

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"

	"odx/backstore/vfs"
)

const diskName = "/disk"

// Disk is such a disk, in memory.
type Disk struct {
	size int64
	fs   *vfs.Mem
	file vfs.File
}

// New returns a disk of zeros; size is in bytes.
func New(size int64) (*Disk, error) {
	m := vfs.NewMem()
	f, err := m.Create(diskName)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Sync(), m.SyncDir("/"))
	}
	return &Disk{size, m, f}, err
}

// CutPower returns the disk as it is found after a power cut.
func (d *Disk) CutPower(rng *rand.Rand) (*Disk, error) {
	m := d.fs.CrashClone(rng)
	f, err := m.Open(diskName)
	return &Disk{d.size, m, f}, err
}

// Server lets a machine use a disk.
type Server struct {
	// File is what qemu takes as the file of a drive.
	File string

	listener net.Listener
	done     sync.WaitGroup
	err      error // valid when done
}

// Serve serves one connection, over a socket in directory dir.
func (d *Disk) Serve(ctx context.Context, dir string) (*Server, error) {
	socket := filepath.Join(dir, "nbd")
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	s := &Server{File: "nbd:unix:" + socket, listener: l}
	s.done.Go(func() {
		c, err := l.Accept()
		if err != nil {
			s.err = err
			return
		}
		defer c.Close()
		s.err = d.serve(c)
	})
	return s, nil
}

// Close returns when the machine's last request was served: the machine must be
// off. The error is what ended the connection, if not the machine.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.done.Wait()
	return errors.Join(err, s.err)
}
