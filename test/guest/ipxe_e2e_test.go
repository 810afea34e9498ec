//go:build e2e

package guest

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"odx/initiator"
	"odx/internal/kit"
	"odx/internal/kit/harness"
)

const (
	bootLimit = 40 * time.Second
	kernel    = "/usr/lib/ipxe/ipxe.lkrn"
	machine   = "iqn.2026-11.example:machine"

	hostSecret, targetSecret = "SecretOfTheHost", "SecretOfTheTarget"

	// Where the small system looks, in sectors: see testdata/boot.s.
	messageAt, answerAt, dataAt = 2048, 2049, 4096
	dataLength                  = 64 << 10
)

//go:embed testdata/boot.s
var source []byte

// system assembles the small system.
func system(t *testing.T) []byte {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		harness.Missing(t, "an assembler for x86")
	}
	dir := t.TempDir()
	object, binary := filepath.Join(dir, "boot.o"), filepath.Join(dir, "boot")
	assembler := exec.CommandContext(t.Context(), harness.Program(t, "as", "binutils"), "--32", "-o", object)
	assembler.Stdin = bytes.NewReader(source)
	if out, err := assembler.CombinedOutput(); err != nil {
		t.Fatalf("as: %v\n%s", err, out)
	}
	harness.Run(t.Context(), t, harness.Program(t, "ld", "binutils"), "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-e", "start", "-o", binary, object)
	code, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// install writes the small system, a message for it and its data to a LUN; it
// returns the message, and the sum of the data.
func install(t *testing.T, d *initiator.Disk, code []byte) (message string, sum uint16) {
	t.Helper()
	data := make([]byte, dataLength)
	rand.Read(data) // never fails (crypto/rand)
	message = "message " + hex.EncodeToString(data[:16])
	for _, b := range data {
		sum += uint16(b)
	}
	sector := make([]byte, 512)
	copy(sector, message)
	for _, w := range []struct {
		at    int64
		bytes []byte
	}{{0, code}, {messageAt, sector}, {answerAt, make([]byte, 512)}, {dataAt, data}} {
		if err := d.WriteAt(t.Context(), w.bytes, w.at*512); err != nil {
			t.Fatal(err)
		}
	}
	return message, sum
}

// boot starts a machine whose iPXE runs a script, and returns what its serial port
// said and the exit status of qemu.
func boot(t *testing.T, script string) (said string, status int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "boot.ipxe")
	if err := os.WriteFile(file, []byte("#!ipxe\n"+script), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	qemu := exec.CommandContext(ctx, harness.Program(t, "qemu-system-x86_64", "qemu-system-x86"),
		"-machine", "pc,accel=tcg", "-m", "128", "-display", "none", "-no-reboot", "-nodefaults",
		"-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-kernel", kernel, "-initrd", file)
	var out, errs bytes.Buffer
	qemu.Stdout, qemu.Stderr = &out, &errs
	err := qemu.Run()
	if ctx.Err() != nil {
		t.Fatalf("the machine does not end; it said %q\n%s", out.String(), errs.String())
	}
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatalf("qemu: %v\n%s", err, errs.String())
	}
	t.Logf("%s%s", out.String(), errs.String())
	return out.String(), qemu.ProcessState.ExitCode()
}

// settings give iPXE its name; the target is reached through the host of qemu's
// network.
func settings(target *kit.Target, more ...string) (script, uri string) {
	lines := append([]string{"dhcp || goto failed", "set initiator-iqn " + machine}, more...)
	return strings.Join(lines, "\n") + "\n", fmt.Sprintf("iscsi:10.0.2.2::%d:0:%s", target.Port(), target.IQN)
}

// failed is the end of a script whose boot fails.
const failed = ":failed\nreboot\n"

// The exit statuses of qemu: what the small system writes to isa-debug-exit, times
// two, plus one; and after reboot, because of -no-reboot.
const (
	statusBooted   = 16*2 + 1
	statusRebooted = 0
)

// TestBoot boots from a LUN without authentication, with CHAP and with mutual CHAP,
// and does not boot with wrong secrets in either direction.
func TestBoot(t *testing.T) {
	if _, err := os.Stat(kernel); err != nil {
		harness.Missing(t, kernel+" is not installed (Debian package ipxe)")
	}
	code := system(t)
	chap := map[string]any{"users": []any{map[string]any{"name": "host", "secret": hostSecret, "initiators": []string{machine, "iqn.2026-11.example.odx:initiator"}}}}
	mutual := map[string]any{"users": chap["users"], "mutual": map[string]any{"name": "target", "secret": targetSecret}}
	login := []string{"set username host", "set password " + hostSecret}
	both := append(login[:2:2], "set reverse-username target", "set reverse-password "+targetSecret)
	for _, c := range []struct {
		name           string
		authentication map[string]any
		settings       []string
		boots          bool
		log            string // that the target leaves
	}{
		{"no authentication", nil, nil, true, "initiator logged in"},
		{"chap", chap, login, true, "user=host"},
		{"mutual chap", mutual, both, true, "user=host"},
		{"wrong secret", chap, []string{"set username host", "set password WrongSecretWrong"}, false, "wrong secret"},
		{"no secret", chap, nil, false, "login refused"},
		{"mutual chap, another target", mutual, append(login[:2:2], "set reverse-username target", "set reverse-password SecretOfAnother1"), false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			more := kit.Settings{}
			var credentials initiator.Credentials
			if c.authentication != nil {
				more.Target = map[string]any{"authentication": c.authentication}
				credentials = initiator.Credentials{User: "host", Password: hostSecret}
			}
			target := harness.ServeWith(t, more, kit.LUN{Size: 64 << 20})
			disk := open(t, target, credentials)
			message, sum := install(t, disk, code)

			script, uri := settings(target, c.settings...)
			said, status := boot(t, script+"sanboot --no-describe "+uri+" || goto failed\n"+failed)
			answer := make([]byte, 512)
			if err := disk.ReadAt(t.Context(), answer, answerAt*512); err != nil {
				t.Fatal(err)
			}
			harness.Logged(t, target, c.log)
			if !c.boots {
				if status != statusRebooted || strings.Contains(said, "odx boot") || !bytes.Equal(answer, make([]byte, 512)) {
					t.Errorf("the machine booted; status %d", status)
				}
				return
			}
			for _, want := range []string{"odx boot: a system from a LUN", message, fmt.Sprintf("odx boot: sum %04x", sum), "odx boot: done"} {
				if !strings.Contains(said, want) {
					t.Errorf("the machine does not say %q", want)
				}
			}
			if status != statusBooted || !strings.HasPrefix(string(answer), message+"\x00") {
				t.Errorf("status %d, the answer is %q", status, answer[:64])
			}
		})
	}
}

// TestIdleMenu: iPXE answers no ping, so that one which sits in a menu with its disk
// keeps its session only without pings (ping_after: 0).
func TestIdleMenu(t *testing.T) {
	if _, err := os.Stat(kernel); err != nil {
		harness.Missing(t, kernel+" is not installed (Debian package ipxe)")
	}
	code := system(t)
	for _, c := range []struct {
		name  string
		after string
		stays bool
	}{{"pings", "1s", false}, {"no pings", "0", true}} {
		t.Run(c.name, func(t *testing.T) {
			target := harness.ServeWith(t, kit.Settings{File: map[string]any{"limits": map[string]any{"ping_after": c.after, "ping_timeout": "1s"}}},
				kit.LUN{Size: 64 << 20})
			disk := open(t, target, initiator.Credentials{})
			install(t, disk, code)
			script, uri := settings(target)
			said, status := boot(t, script+"sanhook --no-describe --drive 0x80 "+uri+" || goto failed\nsleep 6\n"+
				"sanboot --no-describe --drive 0x80 || goto failed\n"+failed)
			logins := strings.Count(target.Log(), "initiator logged in")
			if c.stays && (status != statusBooted || !strings.Contains(said, "odx boot: done")) {
				t.Errorf("status %d", status)
			}
			if stays := logins == 2; stays != c.stays { // ours, and the machine's
				t.Errorf("%d logins", logins)
			}
		})
	}
}

// open opens the LUN as the test's own initiator.
func open(t *testing.T, target *kit.Target, login initiator.Credentials) *initiator.Disk {
	t.Helper()
	d, err := initiator.Open(t.Context(), initiator.Options{URL: initiator.URL{Address: target.Portal, Target: target.IQN, Login: login}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}
