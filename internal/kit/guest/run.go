package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Setup is what a machine has in addition to the image.
type Setup struct {
	// With are the layers in addition to the base.
	With []Layer
	// Files are put into its root file system: their names there, and here.
	Files map[string]string
	// Disks are what qemu takes as the file of a drive, in raw format: they
	// become /dev/vda and so on. Written data is in the disk's volatile cache
	// until the guest flushes it.
	Disks []string
	// Forward gives TCP ports of the machine, and those of the host's loopback
	// under which they can be reached.
	Forward map[int]int
	// Answer, which may be nil, answers what the script asks by the shell function
	// ask, one question after the other.
	Answer func(question string) (string, error)
	// Said, which may be nil, is called with each line of output, from one
	// goroutine.
	Said func(line string)
}

// Result is what came of a script.
type Result struct {
	Status int // exit status
	Output string
}

// Machine is a guest that runs.
type Machine struct {
	dir  string
	cmd  *exec.Cmd
	out  *transcript
	ctx  context.Context
	desk *desk // nil if no prompt is expected
}

// Run boots the image, runs script (of a POSIX shell, with the functions of
// functions.sh) in it as root and returns when the machine is off. When ctx
// ends the machine is switched off. An error says that there is no exit
// status; the output is returned in any case.
func (i *Image) Run(ctx context.Context, script string, s Setup) (Result, error) {
	m, err := i.Start(ctx, script, s)
	if err != nil {
		return Result{}, err
	}
	return m.Wait()
}

// Start boots the image and lets script run in it. The caller calls Wait.
func (i *Image) Start(ctx context.Context, script string, s Setup) (*Machine, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return nil, err
	}
	m := &Machine{dir: dir, out: &transcript{said: s.Said}, ctx: ctx}
	preamble := ". /usr/functions.sh\n"
	if s.Answer != nil {
		if m.desk, err = openDesk(s.Answer); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		preamble += "DESK='" + m.desk.address() + "'\n"
	}
	err = i.writeRoot(m.path("initrd"), preamble+script, s)
	if err == nil {
		m.cmd = exec.CommandContext(ctx, "qemu-system-x86_64", append(m.arguments(i), s.arguments()...)...)
		m.cmd.Stdout, m.cmd.Stderr = m.out, m.out
		m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err = m.cmd.Start()
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// close frees what the machine had.
func (m *Machine) close() {
	if m.desk != nil {
		m.desk.close()
	}
	os.RemoveAll(m.dir)
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *Machine) arguments(i *Image) []string {
	return []string{
		"-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-M", "q35", "-smp", "2", "-m", "768",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", i.kernel(), "-initrd", m.path("initrd"),
		// oops=panic and panic=-1 with -no-reboot: what crashes in the guest ends qemu.
		"-append", "console=ttyS0 quiet oops=panic panic=-1 mitigations=off nokaslr net.ifnames=0 random.trust_cpu=on tsc=reliable",
		"-serial", "file:" + m.path("console"),
		"-device", "virtio-net-pci,netdev=net,romfile=",
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=status,path=" + m.path("status"), "-device", "virtserialport,chardev=status,name=status",
		"-chardev", "stdio,id=out,signal=off", "-device", "virtconsole,chardev=out",
	}
}

func (s *Setup) arguments() []string {
	net := "user,id=net,ipv6=off"
	for port, here := range s.Forward {
		net += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", here, port)
	}
	args := []string{"-netdev", net}
	for _, file := range s.Disks {
		args = append(args, "-drive", "if=virtio,format=raw,cache=writeback,file="+file)
	}
	return args
}

// PowerOff takes the machine's power away.
func (m *Machine) PowerOff() error { return m.cmd.Process.Kill() }

// Wait returns when the machine is off. An error says that there is no exit
// status; the output is returned in any case.
func (m *Machine) Wait() (Result, error) {
	defer m.close()
	runErr := m.cmd.Wait()
	r := Result{Output: m.out.String()}
	said, err := os.ReadFile(m.path("status"))
	if err == nil {
		r.Status, err = strconv.Atoi(strings.TrimSpace(string(said)))
	}
	if err != nil {
		boot, _ := os.ReadFile(m.path("console"))
		return r, fmt.Errorf("the guest ended without an exit status: %w; its console:\n%s", errors.Join(m.ctx.Err(), runErr, err), boot)
	}
	return r, nil
}

// writeRoot writes the archives of the layers to path, followed by one with the
// script and the files: the kernel unpacks one after the other.
func (i *Image) writeRoot(path, script string, s Setup) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	for _, l := range append([]Layer{base}, s.With...) {
		if err := appendFile(out, i.archive(l)); err != nil {
			return err
		}
	}
	a := newArchive(out)
	a.file("script", 0o755, []byte(script))
	for name, here := range s.Files {
		info, err := os.Stat(here)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(here)
		if err != nil {
			return err
		}
		a.file(name, info.Mode(), data)
	}
	return errors.Join(a.close(), out.Close())
}

func appendFile(out *os.File, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = out.ReadFrom(in)
	return err
}
