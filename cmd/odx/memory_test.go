package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"odx/initiator"
	"odx/internal/kit/sample"
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
	lun   byte
}

// request sends a request of the full feature phase with CmdSN and data.
func (h *hog) request(opcode, flags byte, n uint32, cdb []byte, data []byte) error {
	pdu := make([]byte, 48, 48+len(data))
	pdu[0], pdu[1] = opcode, flags
	copy(pdu[5:8], []byte{byte(len(data) >> 16), byte(len(data) >> 8), byte(len(data))})
	pdu[9] = h.lun
	binary.BigEndian.PutUint32(pdu[16:], h.cmdSN)
	binary.BigEndian.PutUint32(pdu[20:], n)
	binary.BigEndian.PutUint32(pdu[24:], h.cmdSN)
	copy(pdu[32:], cdb)
	h.cmdSN++
	_, err := h.Write(append(append(pdu, data...), make([]byte, -len(data)&3)...))
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
	h := dialHog(t, portal, "127.0.0.1")
	h.logIn(t, k, "TargetName=iqn.2026-11.example.odx:disks\x00InitialR2T=No\x00FirstBurstLength=262144\x00MaxBurstLength=1048576\x00")
	for h.lun = range byte(2) {
		h.awaitReady(t, k)
	}
	h.lun = 0
	return h
}

// dialHog connects from an address and sends nothing.
func dialHog(t *testing.T, portal, from string) *hog {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", portal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &hog{Conn: conn}
}

// loginPDU is a login request with flags and a text, padded. Its ISID is that of no other
// connection.
func (h *hog) loginPDU(flags byte, text string) []byte {
	pdu := make([]byte, 48, 48+len(text)+3)
	pdu[0], pdu[1] = 0x43, flags
	binary.BigEndian.PutUint16(pdu[6:], uint16(len(text)))
	pdu[8] = 0x80
	binary.BigEndian.PutUint16(pdu[12:], uint16(h.LocalAddr().(*net.TCPAddr).Port))
	return append(append(pdu, text...), make([]byte, -len(text)&3)...)
}

// logIn logs in with a name of its own and more keys.
func (h *hog) logIn(t *testing.T, k int, keys string) {
	t.Helper()
	text := fmt.Sprintf("InitiatorName=iqn.2026-11.example.odx:hog%d\x00MaxRecvDataSegmentLength=262144\x00%s", k, keys)
	if _, err := h.Write(h.loginPDU(0x87, text)); err != nil {
		t.Fatal(err)
	}
	if a := h.answer(t, k); a[0] != 0x23 || a[36] != 0 {
		t.Fatalf("login response % x", a)
	}
}

// answer reads a PDU and returns its header.
func (h *hog) answer(t *testing.T, k int) []byte {
	t.Helper()
	header := make([]byte, 48)
	if _, err := io.ReadFull(h, header); err != nil {
		t.Fatalf("initiator %d: %v", k, err)
	}
	n := int64(header[5])<<16 | int64(header[6])<<8 | int64(header[7])
	if _, err := io.CopyN(io.Discard, h, (n+3)&^3); err != nil {
		t.Fatalf("initiator %d: %v", k, err)
	}
	return header
}

// awaitReady sends TEST UNIT READY until it is answered with GOOD.
func (h *hog) awaitReady(t *testing.T, k int) {
	t.Helper()
	var last []byte
	for range 4 {
		if err := h.request(0x01, 0x81, 0, make([]byte, 6), nil); err != nil {
			t.Fatal(err)
		}
		if last = h.answer(t, k); last[3] == 0 {
			return
		}
	}
	t.Fatalf("initiator %d: the logical unit is not ready: % x", k, last)
}

// attackConfig has a disk outside the store too, copies of which move bytes.
const attackConfig = `data_dir: data
portals: ["127.0.0.1:0"]
targets:
  - name: iqn.2026-11.example.odx:disks
    luns:
      - {lun: 0, volume: src, size: 64MiB}
      - {lun: 1, backing: "file:disk.img", size: 64MiB}
log: {level: info}
`

// attack is what n clients do to a server.
type attack func(t *testing.T, s *server, n int)

// TestServe_Memory: whatever initiators ask for and do not take, or announce and
// do not send, and whatever else makes work, the server stays within its memory, and
// serves others. The sample is all attacks at once; with -all, each by itself, too.
func TestServe_Memory(t *testing.T) {
	skipWithRaceDetector(t)
	attacks := map[string]attack{
		"reads without a reader": commands(100, func(h *hog) error { // 94 GiB
			return h.request(0x01, 0xc1, hogTransfer, transfer16(0x88), nil)
		}),
		"writes without data": commands(100, func(h *hog) error {
			return h.request(0x01, 0xa1, hogTransfer, transfer16(0x8a), nil)
		}),
		"writes with only the first burst": commands(24, func(h *hog) error { // 360 MiB
			return h.request(0x01, 0xa1, hogTransfer, transfer16(0x8a), make([]byte, 256<<10))
		}),
		"pings without a reader": commands(200, func(h *hog) error { // 750 MiB
			return h.request(0x40, 0x80, 0xffffffff, nil, make([]byte, 64<<10))
		}),
		"verifications": commands(100, func(h *hog) error { // 1.5 GiB
			return h.request(0x01, 0x81, 0, transfer16(0x8f), nil)
		}),
		"patterns": commands(100, func(h *hog) error { // 6 GiB
			return h.request(0x01, 0xa1, 512, transfer16(0x93), bytes.Repeat([]byte{1}, 512))
		}),
		"extended copies that move bytes": commands(100, func(h *hog) error {
			h.lun = 1
			list := extendedCopyList()
			return h.request(0x01, 0xa1, uint32(len(list)), thirdPartyCopy(0x00, 0, len(list)), list)
		}),
		"tokens that move bytes": commands(100, func(h *hog) error {
			h.lun = 1
			list := populateList()
			return h.request(0x01, 0xa1, uint32(len(list)), thirdPartyCopy(0x10, h.cmdSN, len(list)), list)
		}),
		"discovery without a reader": floodDiscovery,
		"logins that do not end":     openLogins,
		"requests of the API":        floodAPI,
	}
	run := map[string]attack{"all of it": func(t *testing.T, s *server, n int) {
		var all sync.WaitGroup
		defer all.Wait()
		for _, a := range attacks {
			all.Go(func() { a(t, s, n/sample.Size(15, 15, 5)) }) // few of each are more than fits, too
		}
	}}
	if sample.Size(0, 0, 1) > 0 {
		maps.Copy(run, attacks)
	}
	for what, a := range run {
		t.Run(what, func(t *testing.T) {
			s, group := startInGroup(t, groupLimit, attackConfig)
			peak := watchMemory(t, s)
			a(t, s, hogs)
			for range 5 {
				useDisk(t, s)
			}
			if n := peak(); n > groupLimit {
				t.Errorf("%d MiB of anonymous memory, %d is the limit", n>>20, groupLimit>>20)
			} else {
				t.Logf("%d MiB of anonymous memory at most", n>>20)
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

// skipWithRaceDetector: its shadow memory is five to ten times that of the program, and
// counts in the control group. The attacks run without it in the unit tests.
func skipWithRaceDetector(t *testing.T) {
	t.Helper()
	if raceDetector {
		t.Skip("the race detector takes several times the memory that is measured here")
	}
}

// watchMemory measures the anonymous memory of a server until the function that it returns
// is called, which returns the most that there was.
func watchMemory(t *testing.T, s *server) (peak func() int64) {
	t.Helper()
	var most int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			if n, err := anonymousBytes(s.cmd.Process.Pid); err == nil {
				most = max(most, n)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	end := sync.OnceFunc(func() { close(stop); <-stopped })
	t.Cleanup(end)
	return func() int64 {
		end()
		return most
	}
}

// commands has sessions send a command so often, and read no answer.
func commands(times int, send func(h *hog) error) attack {
	return func(t *testing.T, s *server, n int) {
		for k := range n {
			h := newHog(t, s.portal, k)
			for range times {
				h.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) // the server may read no more
				if send(h) != nil {
					break
				}
			}
		}
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
	const off = 48 << 20 // where no attack writes
	want, got := bytes.Repeat([]byte("odx!"), 128<<10), make([]byte, 512<<10)
	if err := d.WriteAt(ctx, want, off); err != nil {
		t.Fatal(err)
	}
	if err := d.ReadAt(ctx, got, off); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%v, equal %v", err, bytes.Equal(got, want))
	}
}

// anonymousBytes is the anonymous memory of a process (RssAnon, proc(5)).
func anonymousBytes(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "RssAnon:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("no RssAnon")
}

// memoryGroup is a control group with a limit of memory; empty where none can be made.
type memoryGroup string

// startInGroup starts a server that finds itself in a control group with limit bytes of
// memory or, where this user can make none, has three quarters of it by its configuration.
func startInGroup(t *testing.T, limit int, config string) (*server, memoryGroup) {
	t.Helper()
	group, err := newMemoryGroup(t, limit)
	if err != nil {
		t.Logf("no control group can be made (%v): the memory is in the configuration, and RssAnon the judge", err)
		return startServer(t, odx("serve", "--config", writeConfig(t, fmt.Sprintf("memory: %dMiB\n", limit>>20*3/4)+config))), ""
	}
	cmd := odx("serve", "--config", writeConfig(t, config))
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(string(group), "cgroup.procs"), os.Args[0]}, cmd.Args[1:]...)
	return startServer(t, cmd), group
}

func newMemoryGroup(t *testing.T, bytes int) (memoryGroup, error) {
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
	return memoryGroup(dir), os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(bytes)), 0o644)
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

// TestServe_IdleMemory: a server of an empty store takes little, whatever the machine has.
func TestServe_IdleMemory(t *testing.T) {
	skipWithRaceDetector(t)
	const most = 64 << 20
	s := startServer(t, odx("serve", "--config", writeConfig(t, config)))
	useDisk(t, s)
	n, err := anonymousBytes(s.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if n > most {
		t.Errorf("%d MiB of anonymous memory, want %d at most", n>>20, most>>20)
	}
	t.Logf("%d MiB of anonymous memory", n>>20)
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.end(t); err != nil {
		t.Errorf("%v; standard error:\n%s", err, s.stderr)
	}
}
