package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/initiator"
)

// The attack: sessions, each with an initiator name of its own, and what each of
// their commands asks for.
const (
	hogs        = 60
	hogTransfer = 16 << 20
	groupLimit  = 256 << 20
)

// hog is an initiator that does not play fair.
type hog struct {
	net.Conn
	cmdSN uint32
}

// request sends a request of the full feature phase with CmdSN and data.
func (h *hog) request(opcode, flags byte, n uint32, cdb []byte, data []byte) error {
	pdu := make([]byte, 48, 48+len(data))
	pdu[0], pdu[1] = opcode, flags
	copy(pdu[5:8], []byte{byte(len(data) >> 16), byte(len(data) >> 8), byte(len(data))})
	binary.BigEndian.PutUint32(pdu[16:], h.cmdSN)
	binary.BigEndian.PutUint32(pdu[20:], n)
	binary.BigEndian.PutUint32(pdu[24:], h.cmdSN)
	copy(pdu[32:], cdb)
	h.cmdSN++
	_, err := h.Write(append(pdu, data...))
	return err
}

// transfer16 is the CDB of a READ(16) or WRITE(16) of hogTransfer bytes.
func transfer16(op byte) []byte {
	cdb := make([]byte, 16)
	cdb[0] = op
	binary.BigEndian.PutUint32(cdb[10:], hogTransfer/512)
	return cdb
}

// newHog logs in, and takes the unit attention that waits for it.
func newHog(t *testing.T, portal string, k int) *hog {
	t.Helper()
	conn, err := net.Dial("tcp", portal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	text := fmt.Sprintf("InitiatorName=iqn.2026-11.example.odx:hog%d\x00TargetName=iqn.2026-11.example.odx:disks\x00"+
		"InitialR2T=No\x00FirstBurstLength=262144\x00MaxBurstLength=1048576\x00MaxRecvDataSegmentLength=262144\x00", k)
	pdu := make([]byte, 48, 48+len(text)+3)
	pdu[0], pdu[1] = 0x43, 0x87
	binary.BigEndian.PutUint16(pdu[6:], uint16(len(text)))
	copy(pdu[8:], []byte{0x80, 0, 0, 0, 0, byte(k)})
	pdu = append(append(pdu, text...), make([]byte, -len(text)&3)...)
	if _, err := conn.Write(pdu); err != nil {
		t.Fatal(err)
	}
	answer := func() []byte {
		t.Helper()
		header := make([]byte, 48)
		if _, err := io.ReadFull(conn, header); err != nil {
			t.Fatalf("initiator %d: %v", k, err)
		}
		n := int64(header[5])<<16 | int64(header[6])<<8 | int64(header[7])
		if _, err := io.CopyN(io.Discard, conn, (n+3)&^3); err != nil {
			t.Fatalf("initiator %d: %v", k, err)
		}
		return header
	}
	if a := answer(); a[0] != 0x23 || a[36] != 0 {
		t.Fatalf("login response % x", a)
	}
	h := &hog{Conn: conn}
	var last []byte
	for range 4 { // TEST UNIT READY
		if err := h.request(0x01, 0x81, 0, make([]byte, 6), nil); err != nil {
			t.Fatal(err)
		}
		if last = answer(); last[3] == 0 {
			return h
		}
	}
	t.Fatalf("initiator %d: the logical unit is not ready: % x", k, last)
	return nil
}

// TestServe_Memory: whatever initiators ask for and do not take, or announce and
// do not send, the server stays within its memory, and serves others.
func TestServe_Memory(t *testing.T) {
	for what, attack := range map[string]struct {
		times int // of each initiator
		send  func(h *hog) error
	}{
		"reads without a reader": {100, func(h *hog) error { // 94 GiB
			return h.request(0x01, 0xc1, hogTransfer, transfer16(0x88), nil)
		}},
		"writes without data": {100, func(h *hog) error {
			return h.request(0x01, 0xa1, hogTransfer, transfer16(0x8a), nil)
		}},
		"writes with only the first burst": {24, func(h *hog) error { // 360 MiB
			return h.request(0x01, 0xa1, hogTransfer, transfer16(0x8a), make([]byte, 256<<10))
		}},
		"pings without a reader": {200, func(h *hog) error { // 750 MiB
			return h.request(0x40, 0x80, 0xffffffff, nil, make([]byte, 64<<10))
		}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, group := startInGroup(t)
			for k := range hogs {
				h := newHog(t, s.portal, k)
				for range attack.times {
					h.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) // the server may read no more
					if attack.send(h) != nil {
						break
					}
				}
			}
			peak := int64(0)
			for range 5 {
				useDisk(t, s)
				peak = max(peak, anonymousBytes(t, s.cmd.Process.Pid))
			}
			t.Logf("%d MiB of anonymous memory", peak>>20)
			if peak > groupLimit {
				t.Errorf("%d MiB of anonymous memory, %d is the limit", peak>>20, groupLimit>>20)
			}
			if kills := group.kills(t); kills > 0 {
				t.Errorf("the kernel killed %d processes of the group", kills)
			}
			s.cmd.Process.Signal(syscall.SIGTERM)
			if err := s.end(t); err != nil {
				t.Errorf("%v; standard error:\n%s", err, s.stderr)
			}
		})
	}
}

// useDisk writes and reads as an initiator does that plays fair.
func useDisk(t *testing.T, s *server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	url, err := initiator.ParseURL(fmt.Sprintf("iscsi://%s/iqn.2026-11.example.odx:disks/0", s.portal))
	if err != nil {
		t.Fatal(err)
	}
	d, err := initiator.Open(ctx, initiator.Options{InitiatorName: "iqn.2026-11.example.odx:fair", URL: url})
	if err != nil {
		t.Fatalf("%v; standard error:\n%s", err, s.stderr)
	}
	defer d.Close()
	want, got := bytes.Repeat([]byte("odx!"), 128<<10), make([]byte, 512<<10)
	if err := d.WriteAt(ctx, want, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := d.ReadAt(ctx, got, 1<<20); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v, equal %v", err, bytes.Equal(got, want))
	}
}

// anonymousBytes is the anonymous memory of a process (RssAnon, proc(5)).
func anonymousBytes(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "RssAnon:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no RssAnon")
	return 0
}

// memoryGroup is a control group with groupLimit of memory; empty where none can
// be made.
type memoryGroup string

// startInGroup starts a server that finds itself in a control group with
// groupLimit of memory or, where this user can make none, with as much by its
// configuration.
func startInGroup(t *testing.T) (*server, memoryGroup) {
	t.Helper()
	group, err := newMemoryGroup(t)
	if err != nil {
		t.Logf("no control group can be made (%v): the memory is in the configuration, and RssAnon the judge", err)
		return startServer(t, odx("serve", "--config", writeConfig(t, "memory: 192MiB\n"+config))), ""
	}
	cmd := odx("serve", "--config", writeConfig(t, config))
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(string(group), "cgroup.procs"), os.Args[0]}, cmd.Args[1:]...)
	return startServer(t, cmd), group
}

func newMemoryGroup(t *testing.T) (memoryGroup, error) {
	// cgroup-v1 has a hierarchy for memory, cgroup-v2 one for all.
	base, limit := "/sys/fs/cgroup", "memory.max"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil {
		base, limit = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	}
	dir, err := os.MkdirTemp(base, "odx-test-")
	if err != nil {
		return "", err
	}
	t.Cleanup(func() {
		// The kernel lets go of an ended process a little later.
		for range 100 {
			if err = os.Remove(dir); err == nil {
				return
			}
			exec.Command("sleep", "0.02").Run()
		}
		t.Errorf("control group %s: %v", dir, err)
	})
	return memoryGroup(dir), os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(groupLimit)), 0o644)
}

// kills returns how many processes of the group the kernel has killed.
func (g memoryGroup) kills(t *testing.T) (n int) {
	t.Helper()
	if g == "" {
		return 0
	}
	for _, name := range []string{"memory.oom_control", "memory.events"} {
		text, err := os.ReadFile(filepath.Join(string(g), name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "oom_kill" {
				n, _ = strconv.Atoi(fields[1])
			}
		}
	}
	return n
}
