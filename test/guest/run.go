package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Result is what came of a script.
type Result struct {
	Status int // exit status
	Output string
}

// Run boots the image, runs script (of a POSIX shell, with the functions of
// functions.sh) in it as root and returns when the machine is off. When ctx
// ends the machine is switched off. An error says that there is no exit
// status; the output is returned in any case.
func (i *Image) Run(ctx context.Context, script string) (Result, error) {
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(dir)
	initrd, status, console := filepath.Join(dir, "initrd"), filepath.Join(dir, "status"), filepath.Join(dir, "console")
	if err := i.withScript(initrd, ". /usr/functions.sh\n"+script); err != nil {
		return Result{}, err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max", "-M", "q35", "-smp", "2", "-m", "768",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", i.kernel, "-initrd", initrd,
		// panic=-1 with -no-reboot: a panic of the guest ends qemu.
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr net.ifnames=0 random.trust_cpu=on tsc=reliable",
		"-serial", "file:"+console,
		"-netdev", "user,id=net,ipv6=off", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-device", "virtio-serial-pci",
		"-chardev", "file,id=status,path="+status, "-device", "virtserialport,chardev=status,name=status",
		"-chardev", "stdio,id=out,signal=off", "-device", "virtconsole,chardev=out")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runErr := cmd.Run()
	r := Result{Output: out.String()}
	said, err := os.ReadFile(status)
	if err == nil {
		r.Status, err = strconv.Atoi(strings.TrimSpace(string(said)))
	}
	if err != nil {
		boot, _ := os.ReadFile(console)
		return r, fmt.Errorf("the guest ended without an exit status: %w; its console:\n%s", errors.Join(ctx.Err(), runErr, err), boot)
	}
	return r, nil
}

// withScript writes the image's archive to path, followed by one with the
// script: the kernel unpacks one after the other.
func (i *Image) withScript(path, script string) error {
	in, err := os.Open(i.initrd)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	a := newArchive(out)
	a.file("script", 0o755, []byte(script))
	return errors.Join(a.close(), out.Close())
}
