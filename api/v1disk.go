package api

import (
	"odx/admin"
	v1 "odx/api/v1"
	"odx/vhd"
	"odx/vhd/disk"
)

// DiskV1 returns the JSON of the description of a virtual disk.
func DiskV1(d admin.Disk) v1.Disk {
	return v1.Disk{
		Name: d.Name, Format: string(d.Format), Kind: d.Kind, SizeBytes: d.SizeBytes, FileBytes: d.FileBytes,
		BlockBytes: d.BlockBytes, SectorBytes: d.SectorBytes, PhysicalSectorBytes: d.PhysicalSectorBytes,
		Blocks: d.Blocks, PlacedBlocks: d.PlacedBlocks, FragmentedBlocks: d.FragmentedBlocks,
		LooksLike: d.LooksLike, Mappable: d.Mappable, ID: d.ID, DiskID: d.DiskID, Creator: d.Creator, Created: d.Created,
		Parents: d.Parents, Children: d.Children,
	}
}

func diskOf(d v1.Disk) admin.Disk {
	return admin.Disk{
		Name: d.Name, Format: disk.Format(d.Format), Kind: d.Kind, SizeBytes: d.SizeBytes, FileBytes: d.FileBytes,
		BlockBytes: d.BlockBytes, SectorBytes: d.SectorBytes, PhysicalSectorBytes: d.PhysicalSectorBytes,
		Blocks: d.Blocks, PlacedBlocks: d.PlacedBlocks, FragmentedBlocks: d.FragmentedBlocks,
		LooksLike: d.LooksLike, Mappable: d.Mappable, ID: d.ID, DiskID: d.DiskID, Creator: d.Creator, Created: d.Created,
		Parents: d.Parents, Children: d.Children,
	}
}

// DiskCheckV1 returns the JSON of the result of a disk's check.
func DiskCheckV1(c admin.DiskCheck) v1.DiskCheck {
	return v1.DiskCheck{Sound: c.Sound, Findings: each(func(f admin.DiskFinding) v1.DiskFinding { return v1.DiskFinding(f) })(c.Findings)}
}

func diskCheckOf(c v1.DiskCheck) admin.DiskCheck {
	return admin.DiskCheck{Sound: c.Sound, Findings: each(func(f v1.DiskFinding) admin.DiskFinding { return admin.DiskFinding(f) })(c.Findings)}
}

func diskRequestV1(r admin.DiskRequest) v1.DiskRequest {
	return v1.DiskRequest{
		Operation: string(r.Operation), Source: r.Source, Destination: r.Destination, Overwrite: r.Overwrite, Raw: r.Raw, Fixed: r.Fixed,
		Size: r.Size, BlockLength: r.BlockLength, SectorLength: r.SectorLength, PhysicalSectorLength: r.PhysicalSectorLength,
	}
}

func diskRequestOf(r v1.DiskRequest) admin.DiskRequest {
	return admin.DiskRequest{
		Operation: vhd.Operation(r.Operation), Source: r.Source, Destination: r.Destination, Overwrite: r.Overwrite, Raw: r.Raw, Fixed: r.Fixed,
		Size: r.Size, BlockLength: r.BlockLength, SectorLength: r.SectorLength, PhysicalSectorLength: r.PhysicalSectorLength,
	}
}

func diskProgressV1(p admin.DiskProgress) v1.DiskProgress { return v1.DiskProgress(p) }

func diskProgressOf(p v1.DiskProgress) admin.DiskProgress { return admin.DiskProgress(p) }

// DiskResultV1 returns the JSON of the result of an operation on a virtual disk.
func DiskResultV1(r admin.DiskResult) v1.DiskResult { return v1.DiskResult(r) }

func diskResultOf(r v1.DiskResult) admin.DiskResult { return admin.DiskResult(r) }
