package scsi

import (
	"testing"
)

// TestTask_Scratch: commands that work with more than their data say with how much.
func TestTask_Scratch(t *testing.T) {
	const kib, blocks = 1 << 10, 1 << 10 // 512 KiB
	for name, c := range map[string]struct {
		cdb  []byte
		most int
		none bool
	}{
		"READ":                       {cdb: cdb16(0x88, 0, 0, blocks), none: true},
		"WRITE":                      {cdb: cdb16(0x8A, 0, 0, blocks), none: true},
		"VERIFY of the medium":       {cdb: cdb16(0x8F, 0, 0, blocks), most: verifyChunk},
		"VERIFY of one block":        {cdb: cdb16(0x8F, 6, 0, 1), most: 512},
		"VERIFY with data":           {cdb: cdb16(0x8F, 2, 0, blocks), most: verifyChunk},
		"WRITE AND VERIFY":           {cdb: cdb16(0x8E, 2, 0, blocks), most: verifyChunk},
		"PRE-FETCH":                  {cdb: cdb16(0x90, 0, 0, blocks), most: verifyChunk},
		"PRE-FETCH, IMMED":           {cdb: cdb16(0x90, 2, 0, blocks), none: true},
		"PRE-FETCH, too long":        {cdb: cdb16(0x90, 0, 0, 0), none: true},
		"WRITE SAME":                 {cdb: cdb16(0x93, 0, 0, blocks), most: 512 * kib},
		"WRITE SAME without data":    {cdb: cdb16(0x93, 1, 0, blocks), none: true},
		"COMPARE AND WRITE":          {cdb: compareAndWrite16(8), most: 12 * kib},
		"ORWRITE":                    {cdb: cdb16(0x8B, 0, 0, blocks), most: 520 * kib},
		"TEST UNIT READY":            {cdb: make([]byte, 6), none: true},
		"READ after one that needed": {cdb: cdb16(0x88, 0, 0, 1), none: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			task := NewTask(&f.pool)
			task.Reset(f.nexus, cdb16(0x8F, 0, 0, blocks))
			f.target.Prepare(task)
			task.Reset(f.nexus, c.cdb)
			task.ExpectedOut = 1 << 20
			if c.cdb[0] == 0x93 || c.cdb[0] == 0x8F && c.cdb[1] == 6 {
				task.ExpectedOut = 512
			}
			defer task.Release()
			f.target.Prepare(task)
			if n := task.Scratch(); n > c.most || (n == 0) != c.none {
				t.Errorf("%d bytes, want %d at most, none %v", n, c.most, c.none)
			}
		})
	}
}

func compareAndWrite16(blocks byte) []byte {
	cdb := cdb16(0x89, 0, 0, 0)
	cdb[13] = blocks
	return cdb
}
