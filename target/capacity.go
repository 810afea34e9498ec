package target

import (
	"golang.org/x/sys/unix"
)

// Capacity is how much a store can hold, in bytes.
type Capacity struct {
	// FreeBytes is how much new data fits.
	FreeBytes int64 `json:"free_bytes"`
	// HostFreeBytes is what the file system of the store has free. What it has more
	// than FreeBytes is kept for opening and cleaning, or beyond the capacity that is
	// configured.
	HostFreeBytes int64 `json:"host_free_bytes"`
	// ProvisionedBytes is what all volumes and files could grow to, together.
	ProvisionedBytes int64 `json:"provisioned_bytes"`
	// WarnBytes is the use at which initiators are warned, 0 if they never are. It
	// counts, as the use does, what the store cannot have because others have it.
	WarnBytes int64 `json:"warn_bytes,omitempty"`
}

// Capacity measures how much the store can hold.
func (s *Service) Capacity() (Capacity, error) {
	free, err := s.store.FreeBytes()
	if err != nil {
		return Capacity{}, err
	}
	var host unix.Statfs_t
	if err := unix.Statfs(s.cfg.DataDir, &host); err != nil {
		return Capacity{}, err
	}
	c := Capacity{FreeBytes: free, HostFreeBytes: int64(host.Bavail) * int64(host.Bsize)}
	for _, v := range s.Volumes() {
		c.ProvisionedBytes += v.SizeBytes
	}
	for _, f := range s.Files() {
		c.ProvisionedBytes += f.SizeBytes
	}
	if s.space != nil {
		c.WarnBytes = s.space.threshold
	} else {
		c.WarnBytes = int64(float64(s.store.LiveBytes()+free) * float64(s.cfg.Store.SoftThreshold) / 100)
	}
	return c, nil
}
