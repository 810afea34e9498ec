package api

import (
	"odx/admin"
	v1 "odx/api/v1"
)

// FileV1 returns the JSON of a file.
func FileV1(f admin.File) v1.File { return v1.File(f) }

// FilesV1 returns the JSON of files.
func FilesV1(list []admin.File) []v1.File { return each(FileV1)(list) }

func fileOf(f v1.File) admin.File { return admin.File(f) }

// The name of a file is in the path of the request.

func fileStartV1(r admin.FileStart) v1.StartFile {
	return v1.StartFile{SizeBytes: r.SizeBytes, From: r.From}
}

func fileStartOf(r v1.StartFile, name string) admin.FileStart {
	return admin.FileStart{Name: name, SizeBytes: r.SizeBytes, From: r.From}
}

func fileFinishV1(r admin.FileFinish) v1.FinishFile {
	return v1.FinishFile{Scratch: r.Scratch, Overwrite: r.Overwrite}
}

func fileFinishOf(r v1.FinishFile, name string) admin.FileFinish {
	return admin.FileFinish{Name: name, Scratch: r.Scratch, Overwrite: r.Overwrite}
}
