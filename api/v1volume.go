package api

import (
	"odx/admin"
	v1 "odx/api/v1"
)

// VolumeV1 returns the JSON of a volume.
func VolumeV1(v admin.Volume) v1.Volume { return v1.Volume(v) }

// VolumesV1 returns the JSON of volumes.
func VolumesV1(list []admin.Volume) []v1.Volume { return each(VolumeV1)(list) }

func volumeOf(v v1.Volume) admin.Volume { return admin.Volume(v) }
