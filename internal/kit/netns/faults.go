package netns

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// Rate has the link of the host carry so many bits a second, in each direction; 0: as many
// as the machine can.
func (h *Host) Rate(bits int64) error {
	ends := []struct{ ns, link string }{{h.ns, wire}, {h.net.bridge, h.port}}
	for _, end := range ends {
		_ = run("tc", "-n", end.ns, "qdisc", "del", "dev", end.link, "root") // there may be none
		if bits == 0 {
			continue
		}
		// The bucket takes what is sent within 2 ms, and what does not fit waits up to 50 ms.
		burst := max(bits/8/500, 64<<10)
		if err := batch(fmt.Sprintf("tc -n %s qdisc add dev %s root tbf rate %dbit burst %d latency 50ms", end.ns, end.link, bits, burst)); err != nil {
			return err
		}
	}
	return nil
}

// Drop has everything that the host sends to the others, and gets from them, vanish without
// an answer: neither side gets an error.
func (h *Host) Drop() error {
	rules := fmt.Sprintf("add table inet drops\n"+
		"add chain inet drops in { type filter hook input priority 0; policy accept; }\n"+
		"add chain inet drops out { type filter hook output priority 0; policy accept; }\n"+
		"add rule inet drops in iifname %[1]q drop\n"+
		"add rule inet drops out oifname %[1]q drop\n", wire)
	return h.nft(rules)
}

// DropFrom is Drop for what goes to another host of the network and comes from there.
func (h *Host) DropFrom(other *Host) error {
	return h.nft(fmt.Sprintf("add table inet drops\n"+
		"add chain inet drops in { type filter hook input priority 0; policy accept; }\n"+
		"add chain inet drops out { type filter hook output priority 0; policy accept; }\n"+
		"add rule inet drops in ip saddr %[1]s drop\n"+
		"add rule inet drops out ip daddr %[1]s drop\n", other.Address))
}

// Pass ends Drop and DropFrom.
func (h *Host) Pass() error { return h.nft("add table inet drops\ndelete table inet drops\n") }

func (h *Host) nft(rules string) error {
	line := h.Args("nft", "-f", "-")
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft on %s: %w: %s", h.Name, err, out)
	}
	return nil
}

// Down takes the host's link away, as a cable that is pulled out.
func (h *Host) Down() error { return run("ip", "-n", h.ns, "link", "set", wire, "down") }

// Up ends Down.
func (h *Host) Up() error {
	if err := run("ip", "-n", h.ns, "link", "set", wire, "up"); err != nil {
		return err
	}
	return ready("ip", "-n", h.ns, "-o", "link", "show", "dev", wire)
}

// Isolate is Down for both links of the host.
func (h *Host) Isolate() error {
	return errors.Join(h.Down(), run("ip", "-n", h.ns, "link", "set", control, "down"))
}

// Rejoin ends Isolate. Routes by the links are gone.
func (h *Host) Rejoin() error {
	if err := run("ip", "-n", h.ns, "link", "set", control, "up"); err != nil {
		return err
	}
	return errors.Join(h.Up(), ready("ip", "-n", h.ns, "-o", "link", "show", "dev", control))
}

// Bytes returns how many bytes the host has sent to the others and got from them, with the
// headers of all layers down to Ethernet.
func (h *Host) Bytes() (sent, received int64, err error) {
	for _, c := range []struct {
		name string
		into *int64
	}{{"tx_bytes", &sent}, {"rx_bytes", &received}} {
		out, err := exec.Command("ip", "netns", "exec", h.ns, "cat", "/sys/class/net/"+wire+"/statistics/"+c.name).Output()
		if err != nil {
			return 0, 0, fmt.Errorf("counters of %s: %w", h.Name, err)
		}
		if *c.into, err = strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return sent, received, nil
}
